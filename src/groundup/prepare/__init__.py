"""From any text to shuffled, verified shards of tokens."""
