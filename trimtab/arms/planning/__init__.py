"""Predicts time and memory of every arm before a study begins, and cuts what does not fit the budget."""
