"""C kernels and their Python wrappers: a leaf that imports nothing else of Trimtab but `trimtab.base`."""
