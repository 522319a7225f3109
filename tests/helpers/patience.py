"""What the tests of arms and studies share: little is spent on timing tiny models and on waiting for endpoints."""

from collections.abc import Iterator

import pytest

from trimtab.measurement.latency import MIN_LATENCIES


@pytest.fixture(autouse=True, scope="session")
def timed_once() -> Iterator[None]:
    """Whatever else runs on this machine, no study times its questions again."""
    from trimtab.studies import study

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "is_busy", lambda share: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_patience(timed_once: None) -> Iterator[None]:
    """A tiny model needs no two seconds of steps to tell its rate and no sixty questions alone, an endpoint here no
    time to recover."""
    from trimtab.arms import workspace
    from trimtab.arms.planning import predict as timing
    from trimtab.inference import remote

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "FIRST_WAIT", 0.01)
        patch.setattr(timing, "TIMED_SECONDS", 0.02)
        patch.setattr(workspace, "MIN_LATENCIES", 4)
        yield


@pytest.fixture
def all_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test question of a small task is asked alone, as where nothing is spared."""
    monkeypatch.setattr("trimtab.arms.workspace.MIN_LATENCIES", MIN_LATENCIES)
