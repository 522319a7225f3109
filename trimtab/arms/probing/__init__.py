"""Probes of an arm: questions, passages and weights changed in ways that the test questions do not contain."""
