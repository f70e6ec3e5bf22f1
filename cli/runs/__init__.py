"""A run from here: checked, sent, followed to its end, or run in this very process."""
