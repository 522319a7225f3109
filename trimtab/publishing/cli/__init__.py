"""The commands of publishing, one file a verb."""
