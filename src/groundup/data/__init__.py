"""Text in, batches out: named corpora, downloads, and the sampler."""
