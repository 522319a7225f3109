"""Weights as files that others load, and read back by those who will use them."""
