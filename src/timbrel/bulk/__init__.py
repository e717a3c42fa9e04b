"""Libraries of hundreds of thousands of patches: rendered and embedded in shards, on every core or on many machines."""
