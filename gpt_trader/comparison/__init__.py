"""Puts finished runs side by side: metrics, equity on common dates, correlation, and what keeps them from comparing."""
