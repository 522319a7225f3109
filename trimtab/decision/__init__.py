"""Decision: from scores to costs over the horizon, the verdict and its sensitivity; pure, without models or files."""
