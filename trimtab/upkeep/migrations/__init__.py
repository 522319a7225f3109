"""Forms that the tables of the registry have had, each a step from the one before."""
