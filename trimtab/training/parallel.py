"""Runs micro-batches in parallel threads (lanes) and yields results in order; `optim.py` sums their gradients.

A matrix product that is split over several threads ends with the slowest of them; if another program occupies one core,
all threads wait for it, hundreds of times a layer. Lanes wait for each other only at the end of a step. Small
operations, which extra threads hardly speed up, run concurrently.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

MAX_LANES = 4  # lanes; each holds the activations of a pass
LANE_COST = 0.85  # seconds of a pass in a lane, over (lanes times its seconds on all cores)

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Lane(threading.local):
    """Thread-local state: the number of lanes that this thread is one of, 0 outside of a lane."""

    lane_count = 0


_lane = _Lane()


def parallel_lanes() -> int:
    """Return how many micro-batches run in parallel: one per thread up to MAX_LANES, and one on a GPU.

    Inside a lane, which has only its share of the threads, the number is the same as outside.
    """
    return 1 if torch.cuda.is_available() else _lane.lane_count or min(MAX_LANES, torch.get_num_threads())


def map_microbatches(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply `function` to each item in parallel lanes and yield the results in the order of the items.

    An item that is left over, or alone, gets all threads. Gradients are enabled in the lanes if they are enabled in the
    caller. If one call fails, those that are running end first. Inside a lane the items run one after another.
    """
    count = 1 if _lane.lane_count else parallel_lanes()
    threads = torch.get_num_threads()
    grad_enabled = torch.is_grad_enabled()
    in_parallel = [] if count == 1 or len(items) == 1 else items[: len(items) - (len(items) % count == 1)]

    def run_in_lane(item: Item) -> Result:
        torch.set_num_threads(max(1, threads // count))  # for this thread; new threads inherit the last number set
        with torch.set_grad_enabled(grad_enabled):
            return function(item)

    running: deque[Future[Result]] = deque()
    try:
        running += [_pool(count).submit(run_in_lane, item) for item in in_parallel]
        while running:
            yield running.popleft().result()  # keeping the future would keep its result alive
    finally:
        for future in running:
            future.cancel()
        wait(running)
        torch.set_num_threads(threads)
    yield from map(function, items[len(in_parallel) :])


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Return the thread pool for `count` lanes; it is cached, so that each thread reuses its memory in the next
    step.
    """
    return ThreadPoolExecutor(count, "lane", initializer=partial(setattr, _lane, "lane_count", count))
