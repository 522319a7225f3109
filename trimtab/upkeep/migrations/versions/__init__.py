"""One file a step. A step only adds (tables, columns that may be empty), so that the version before reads on."""
