"""What every room shares; imports no torch."""
