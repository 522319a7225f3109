"""Lets the tests of this folder import helpers, and spends little on timing tiny models and on waiting for endpoints."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "answering")]


@pytest.fixture(autouse=True, scope="session")
def no_patience() -> Iterator[None]:
    """A tiny model needs no two seconds of steps to tell its rate, an endpoint here no time to recover."""
    from trimtab.answering import remote
    from trimtab.studies import plan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "FIRST_WAIT", 0.01)
        patch.setattr(plan, "TIMED_SECONDS", 0.02)
        yield
