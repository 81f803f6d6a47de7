"""Inspects the shards of a corpus before a model is trained on them."""
