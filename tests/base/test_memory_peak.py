"""What some work took of memory, beside what it leaves behind."""

from __future__ import annotations

import time

import numpy as np

from trimtab.base.machine import MemoryPeak


def test_what_work_took_is_told_without_what_stays() -> None:
    with MemoryPeak(every=0.01) as memory:
        stays = np.ones(10_000_000)  # 80 MB
        passes = np.ones(25_000_000)  # 200 MB
        time.sleep(0.1)
        del passes
    assert 180 < memory.beyond() < 220
    assert stays.sum() == 10_000_000
