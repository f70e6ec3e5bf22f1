"""The REST API: one router a resource, over storage and the core."""
