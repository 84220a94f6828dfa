"""What a policy is held against: frozen, adapter-off, none; and the cache of its log-probs."""
