"""Texts from a model, a token at a time."""
