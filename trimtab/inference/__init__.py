"""Prompt in, answer out, fast: every kind of arm."""
