"""Reads files into clean and split examples, and builds every prompt with its loss mask."""
