"""What training reads: corpora, shards, and the batches made of them."""
