"""What some work took of memory beside what it leaves behind, and that what holds on to itself is freed."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np

from trimtab.base.machine import MemoryPeak, freeze_imports, release_memory


def test_what_work_took_is_told_without_what_stays() -> None:
    with MemoryPeak(every=0.01) as memory:
        stays = np.ones(10_000_000)  # 80 MB
        passes = np.ones(25_000_000)  # 200 MB
        time.sleep(0.1)
        del passes
    assert 180 < memory.beyond() < 220
    assert stays.sum() == 10_000_000


def test_libraries_are_passed_over_once_and_what_comes_later_is_freed() -> None:
    class Model:
        def __init__(self) -> None:
            self.itself = self

    freeze_imports()
    passed_over = gc.get_freeze_count()
    assert passed_over > 10_000
    model = Model()
    seen = weakref.ref(model)
    freeze_imports()  # as when a second model is loaded
    del model
    release_memory()
    assert seen() is None
    assert gc.get_freeze_count() <= passed_over
