"""The publisher's side of retrieval: whether assistants can read, find and cite what a site says."""

from pathlib import Path

CACHE = Path(".trimtab") / "surface"
"""Folder of fetched pages and vectors unless another is given."""
