"""What a recipe costs: measured here, predicted for here, estimated for GPUs elsewhere."""
