"""The records of a study in, one page out."""
