"""Portfolios: many symbols, one cash account, target weights, and when they are traded back to."""
