"""Foundations that every other package imports: task file, configuration, records, results, files, errors. No torch."""
