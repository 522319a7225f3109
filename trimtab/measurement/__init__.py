"""Answers in, scores with their uncertainty out."""
