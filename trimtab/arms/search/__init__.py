"""Searches on dev: contexts, learning rates, numbers of passages and instructions."""
