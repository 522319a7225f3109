"""Scores in, the decision out: cost over the horizon, the verdict, and what would flip it; pure, no model and no files."""
