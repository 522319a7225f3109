"""Changes what the model sees."""
