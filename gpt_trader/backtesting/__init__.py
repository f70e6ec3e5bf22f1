"""The backtest slice's core: engine, metrics, result, report. vectorbt is imported in this package only."""
