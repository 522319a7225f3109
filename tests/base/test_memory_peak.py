"""The memory that some work took beside what it leaves behind; objects that refer to themselves are freed."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from trimtab.base.machine import MemoryPeak, gc_frozen, release_memory


def test_what_work_took_is_told_without_what_stays() -> None:
    release_memory()  # what earlier tests freed and the process kept
    with MemoryPeak(every=0.01) as memory:
        stays = np.ones(10_000_000)  # 80 MB
        passes = np.ones(25_000_000)  # 200 MB
        time.sleep(0.1)
        del passes
    assert 180 < memory.above_present() < 220
    assert stays.sum() == 10_000_000


class Model:
    """Holds on to itself, as models do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("all_searched")
def test_libraries_are_passed_over_and_what_comes_later_is_freed() -> None:
    with gc_frozen():
        assert gc.get_freeze_count() > 10_000
        seen = weakref.ref(Model())
        release_memory()
        assert seen() is None


@pytest.mark.usefixtures("all_searched")
def test_an_inner_use_ends_nothing_of_the_outer_one() -> None:
    with gc_frozen():
        model = Model()
        seen = weakref.ref(model)
        with gc_frozen():
            del model
            release_memory()
            assert seen() is None  # nothing more is passed over
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("all_searched")
def test_a_model_of_the_callers_own_is_freed_once_the_verb_has_ended() -> None:
    model = Model()
    seen = weakref.ref(model)
    with gc_frozen():
        del model
        release_memory()
        assert seen() is not None  # it was passed over, too
    release_memory()
    assert seen() is None
    assert gc.get_freeze_count() == 0
