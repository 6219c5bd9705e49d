"""Services: where they listen and which backends stand behind them."""
