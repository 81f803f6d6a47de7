"""What a recipe costs: measured or predicted on this machine, or estimated for other GPUs."""
