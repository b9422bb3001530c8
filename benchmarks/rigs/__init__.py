"""What benchmarks and tests drive alike: a real S3 server, a live Dagster, a browser, made-up tables and text."""
