"""The public functions, one module per command, from a task file to the decision."""
