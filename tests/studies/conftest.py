"""Lets the tests of this folder import its helpers, and spends little on timing tiny models."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def short_timing() -> Iterator[None]:
    """A tiny model needs no two seconds of steps to tell its rate."""
    from trimtab.studies import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "TIMED_SECONDS", 0.02)
        yield
