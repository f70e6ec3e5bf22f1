"""The simulation kernel: one bar step from account, bar and wanted position to fills and account."""
