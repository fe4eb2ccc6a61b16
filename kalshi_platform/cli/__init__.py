"""The command line: one file per subcommand, put together in `main`."""
