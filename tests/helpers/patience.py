"""What the tests of arms and studies share: little is spent on timing tiny models and on waiting for endpoints."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_patience() -> Iterator[None]:
    """A tiny model needs no two seconds of steps to tell its rate, an endpoint here no time to recover."""
    from trimtab.answering import remote
    from trimtab.arms import timing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "FIRST_WAIT", 0.01)
        patch.setattr(timing, "TIMED_SECONDS", 0.02)
        yield
