"""Changes what the model is."""
