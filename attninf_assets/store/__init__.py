"""Where everything lies: one root, local or S3, and the Delta Lake tables under it."""
