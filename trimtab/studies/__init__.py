"""Composition: from a task file to the decision."""
