"""Dagster resources, the settings they are made from, and clients of S3 and of the webserver."""
