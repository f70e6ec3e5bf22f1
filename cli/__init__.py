"""The command line: a client of the API, and the supervisor of a local engine."""
