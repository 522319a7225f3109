"""Compiled kernels and their torch twins: a leaf that imports nothing else of Trimtab but `base`."""
