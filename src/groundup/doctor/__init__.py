"""What a recipe costs on this machine: measured by `bench`, predicted by `plan`."""
