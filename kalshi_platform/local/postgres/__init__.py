"""The embedded PostgreSQL server: its programs, files and user, started, stopped and started again by us."""
