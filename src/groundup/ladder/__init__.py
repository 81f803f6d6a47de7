"""The ladder: what each step from a table of pairs to the modern GPT buys, measured here."""
