"""Vendors on loopback: servers that answer as the real ones do, and fail to order."""
