"""Where things are kept: the lake of bars, the database, runs and the event log."""
