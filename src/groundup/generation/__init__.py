"""Texts from a model: streamed, sampled, interactive."""
