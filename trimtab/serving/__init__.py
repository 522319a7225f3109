"""Serve measured arms behind an OpenAI-compatible API, with a page that collects feedback."""
