"""What a recipe costs: measured by `bench`, predicted by `plan`."""
