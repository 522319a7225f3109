"""Training, context selection, calibration and measurement of one arm."""
