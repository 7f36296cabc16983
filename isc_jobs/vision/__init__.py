"""Pictures: decoding, shards, training views, the descriptor model."""
