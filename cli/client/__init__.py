"""The API as this program sees it: one connection, typed calls, event streams, errors."""
