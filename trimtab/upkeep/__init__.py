"""Keeps a verdict true: versions of arms, and which of them is served."""
