"""The local engine: found, started, supervised, stopped; its record on disk and the processes it is made of."""
