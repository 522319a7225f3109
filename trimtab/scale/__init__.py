"""A study on several machines, by an existing engine."""
