"""The commands of upkeep, one file a verb."""
