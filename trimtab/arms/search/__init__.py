"""Hyperparameter search on dev: contexts, learning rates, passages and instructions."""
