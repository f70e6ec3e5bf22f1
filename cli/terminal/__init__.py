"""What a person or a script meets: global options, errors with exit codes, results in four formats."""
