"""What a training run should know of its data before it reads it."""
