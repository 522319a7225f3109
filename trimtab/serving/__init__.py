"""Measured arms behind an OpenAI-compatible API, with a page that collects judgements."""
