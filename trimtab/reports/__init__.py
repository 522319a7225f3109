"""Turns the records of a study into a report: one HTML page, and Markdown."""
