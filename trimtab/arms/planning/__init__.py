"""Prediction of every arm's time and memory before a study, and cuts that fit the study into its budget."""
