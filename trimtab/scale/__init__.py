"""Runs studies and trainings on the machines of a Ray cluster."""
