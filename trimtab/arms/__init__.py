"""One arm from its weights and its context to its answers."""
