"""Two models, or two runs, side by side."""
