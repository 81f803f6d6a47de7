"""What a model computes on its way through a text, to be looked at."""
