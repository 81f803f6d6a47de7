"""Models on disk: checkpoints written whole, folders that transformers reads, adapters."""
