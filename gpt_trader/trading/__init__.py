"""Trading sessions: one state machine and one ledger, whatever the broker."""
