"""Limits torch's threads to the container's CPU quota and to the cores that other programs leave free.

A matrix product that is split over a busy core waits for it, every time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from trimtab.base.machine import cores, cpu_ids

SAMPLE_SECONDS = 0.25  # seconds between two samples
_NOT_BUSY = {"idle", "iowait", "guest", "guest_nice"}  # guest time is part of user time


class OtherPrograms:
    """The number of this process's cores that other programs kept busy since the last sample."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at, self._seconds_before, self._cores = time.monotonic(), _seconds_of_others(), 0.0

    def cores(self) -> float:
        """Return it in cores; sampled again once the last sample is SAMPLE_SECONDS old."""
        now = time.monotonic()
        if now - self._at >= SAMPLE_SECONDS and self._lock.acquire(blocking=False):
            try:
                taken = _seconds_of_others()
                self._cores = max(0.0, (taken - self._seconds_before) / (now - self._at))
                self._at, self._seconds_before = now, taken
            finally:
                self._lock.release()
        return self._cores


class ProcessorShare:
    """Context manager: measures the share of the processor that other programs leave to this process's threads.

    `share` is (cores - others) / threads, at most 1; `others` is the mean number of cores that other programs kept
    busy. It is None after less than SAMPLE_SECONDS, as the system counts in hundredths of a second.
    """

    def __init__(self) -> None:
        self.share: float | None = None
        self._at, self._seconds_before = 0.0, 0.0

    def __enter__(self) -> ProcessorShare:
        self._at, self._seconds_before = time.monotonic(), _seconds_of_others()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, taken = time.monotonic() - self._at, _seconds_of_others() - self._seconds_before
        if seconds >= SAMPLE_SECONDS:
            left = len(cpu_ids()) - max(0.0, taken) / seconds
            self.share = min(1.0, max(0.0, left / torch.get_num_threads()))


def _seconds_of_others() -> float:
    """Return the seconds of this process's cores that other programs have used so far.

    Programs of lower priority do not count: they yield.
    """
    count_nice = not _runs_at_low_priority()
    times = psutil.cpu_times(percpu=True)
    own = [times[place] for place in cpu_ids() if place < len(times)] or times  # some containers renumber their cores
    busy = sum(
        seconds
        for core in own
        for name, seconds in core._asdict().items()
        if name not in _NOT_BUSY and not (name == "nice" and count_nice)
    )
    return float(busy) - time.process_time()


def _runs_at_low_priority() -> bool:
    """True if this process itself runs at a lower priority."""
    return hasattr(os, "getpriority") and os.getpriority(os.PRIO_PROCESS, 0) > 0


_others = OtherPrograms()


def limit_threads_to_quota() -> None:
    """Limit torch's threads to the cores that this process may keep busy: torch ignores a container's CPU quota.

    Further threads would be throttled while others wait for them. A number set by the user stays.
    """
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > (quota := cores()):
        torch.set_num_threads(quota)


def threads_for_cores(threads: int, allowed: int, taken: float) -> int:
    """Return how many of `threads` find at least half a core if others use `taken` of `allowed`; at least one."""
    return max(1, min(threads, round(allowed - taken)))


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Context manager: limits products to `count` threads, as in a process that has so many cores; None changes
    nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(count or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def single_thread() -> Iterator[int]:
    """Context manager: limits this thread's products to one thread; yields the previous number of threads.

    That number is for the thread that computes beside this one, to be set there. OpenMP's threads spin while they wait
    for the next part of a product, as long as a process has no more of them than cores. A second thread that splits its
    products has a team of its own for as long as it lives, and every step of the first one then takes twice as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@contextmanager
def limit_to_free_cores() -> Iterator[None]:
    """Context manager and decorator: limits products to as many threads as find a free core.

    The number of threads is never raised. Results do not depend on it to the bit (checked on AVX-512, never on AMX);
    changing it takes negligible time.
    """
    before = torch.get_num_threads()
    now = threads_for_cores(before, len(cpu_ids()), _others.cores()) if before > 1 else 1
    if now == before:
        yield
        return
    torch.set_num_threads(now)
    try:
        yield
    finally:
        torch.set_num_threads(before)
