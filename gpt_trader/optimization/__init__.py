"""Searches a strategy's parameters, and says whether the best of them is more than luck."""
