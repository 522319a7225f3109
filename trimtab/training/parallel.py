"""The passes of a step side by side: each on its own share of the cores, so that no thread waits for another one at a barrier.

A product shared among threads ends when the last of them has done its part; where another program runs on one core, all wait for it,
hundreds of times a layer. Passes do not wait for each other but at the end of a step, and small operations, which several threads
hardly make faster, run at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

MAX_LANES = 4  # lanes: each holds the activations of a pass
LANE_COST = 0.85  # seconds of a pass in its lane and of the same on all cores, times lanes

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Lane(threading.local):
    """What a thread knows of itself: of how many lanes it is one, 0 where it is none."""

    lane_count = 0


_lane = _Lane()


def parallel_lanes() -> int:
    """How many passes run side by side: one a thread up to MOST, and one on a GPU. A lane, which has its share of the threads, says the same."""
    return 1 if torch.cuda.is_available() else _lane.lane_count or min(MAX_LANES, torch.get_num_threads())


def map_microbatches(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """What `function` makes of each item, in their order; one that is left over, or alone, has all threads.

    Gradients are made inside where they are made outside. When one fails, those under way end first. Within a lane all come one by one.
    """
    count, threads, grad_enabled = (
        1 if _lane.lane_count else parallel_lanes(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    in_parallel = [] if count == 1 or len(items) == 1 else items[: len(items) - (len(items) % count == 1)]

    def run_in_lane(item: Item) -> Result:
        torch.set_num_threads(max(1, threads // count))  # of this thread; torch keeps the last number for new ones
        with torch.set_grad_enabled(grad_enabled):
            return function(item)

    running: deque[Future[Result]] = deque()
    try:
        running += [_pool(count).submit(run_in_lane, item) for item in in_parallel]
        while running:
            yield running.popleft().result()  # a future would hold its result for as long as it is held
    finally:
        for future in running:
            future.cancel()
        wait(running)
        torch.set_num_threads(threads)
    yield from map(function, items[len(in_parallel) :])


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads that stay: each keeps its memory for the next step."""
    return ThreadPoolExecutor(count, "lane", initializer=partial(setattr, _lane, "lane_count", count))
