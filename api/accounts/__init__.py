"""Accounts, and every way they prove who they are: passwords, tokens, keys, codes, tickets."""
