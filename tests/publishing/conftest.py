"""Crawls of a server on loopback, each with a cache of its own."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.publishing.crawl import crawl
from trimtab.publishing.records import Site


@pytest.fixture
def crawled(tmp_path: Path) -> Callable[..., Site]:
    """Crawl as fast as answers come, in one cache for the test."""

    def run(source: str, **settings: Any) -> Site:
        return crawl(source, cache=tmp_path / "cache", **{"rate": math.inf, **settings})

    return run
