"""The three bundled examples: each a folder with a task file, its data and the script that made the data."""
