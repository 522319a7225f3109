"""Measurement: scores of answers, with their uncertainty."""
