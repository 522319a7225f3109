"""The commands of serving, one file a verb."""
