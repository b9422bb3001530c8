"""Text in: where documents lie, how they are read, and which of them must be refused."""
