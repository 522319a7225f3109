"""Runs micro-batches in parallel, in threads (lanes) or in the processes of a group, and yields results in order;
`optim.py` sums their gradients.

A matrix product that is split over several threads ends with the slowest of them; if another program occupies one core,
all threads wait for it, hundreds of times a layer. Lanes wait for each other only at the end of a step. Small
operations, which extra threads hardly speed up, run concurrently.

In a group every process has the same micro-batches and runs its share of them, with all its threads. Results are
exchanged, so that each process goes on with all of them.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from typing import TypeVar

import torch

from trimtab.model import process_group
from trimtab.model.sharded import with_whole_weights

MAX_LANES = 4  # lanes; each holds the activations of a pass
LANE_COST = 0.85  # seconds of a pass in a lane, over (lanes times its seconds on all cores)

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Lane(threading.local):
    """Thread-local state: the number of lanes that this thread is one of, 0 outside of a lane."""

    lane_count = 0


_lane = _Lane()


def parallel_lanes() -> int:
    """Return how many micro-batches run in parallel: one per process of a group; alone one per thread up to MAX_LANES,
    and one on a GPU.

    Inside a lane, which has only its share of the threads, the number is the same as outside.
    """
    if process_group.size() > 1:
        return process_group.size()
    return 1 if torch.cuda.is_available() else _lane.lane_count or min(MAX_LANES, torch.get_num_threads())


def map_microbatches(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    size: Callable[[Item], int] = lambda _: 1,
    then: Callable[[Item, Result, bool], Result] | None = None,
) -> Iterator[Result]:
    """Apply `function`, which passes through the model, to each item in parallel and yield the results in the order of
    the items.

    `then` makes a result final, for example by its backward pass; its last argument is False for a result that does not
    count. `size`: the tokens of an item, by which the processes of a group divide the items; results are plain data
    there (`process_group.all_gather`), and all processes must call this alike.

    An item that is left over, or alone, gets all threads. Gradients are enabled in the lanes if they are enabled in the
    caller. If one call fails, those that are running end first. Inside a lane the items run one after another.
    """
    if process_group.size() > 1:
        return _map_over_processes(function, items, size, then)
    return _map_over_lanes(function, items, then)


def _map_over_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    size: Callable[[Item], int],
    then: Callable[[Item, Result, bool], Result] | None,
) -> Iterator[Result]:
    """Run this process's share of the items and yield everyone's results.

    Every process makes as many passes, as they gather the layers' weights together: one with fewer items repeats the
    shortest item, which then does not count.
    """
    sizes = list(map(size, items))
    shares = divided_by_size(sizes, process_group.size())
    own, found = shares[process_group.rank()], {}
    for turn in range(max(map(len, shares))):
        counts = turn < len(own)
        number = own[turn] if counts else sizes.index(min(sizes))
        result = with_whole_weights(partial(function, items[number]))
        if then is not None:
            result = then(items[number], result, counts)
        if counts:
            found[number] = result
    everyone = {number: result for part in process_group.all_gather(found) for number, result in part.items()}
    yield from (everyone[number] for number in range(len(items)))


def divided_by_size(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Divide items among `parts` so that each has similar work, and return their indices: the largest first, each to
    the part with the least so far.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    least = [(0, part) for part in range(parts)]
    for number in sorted(range(len(sizes)), key=lambda one: (-sizes[one], one)):
        work, part = heapq.heappop(least)
        shares[part].append(number)
        heapq.heappush(least, (work + sizes[number], part))
    return shares


def _map_over_lanes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    then: Callable[[Item, Result, bool], Result] | None,
) -> Iterator[Result]:
    """Run the items in parallel lanes and yield the results in the order of the items."""
    count = 1 if _lane.lane_count else parallel_lanes()
    threads = torch.get_num_threads()
    grad_enabled = torch.is_grad_enabled()
    in_parallel = [] if count == 1 or len(items) == 1 else items[: len(items) - (len(items) % count == 1)]

    def run_in_lane(item: Item) -> Result:
        torch.set_num_threads(max(1, threads // count))  # for this thread; new threads inherit the last number set
        with torch.set_grad_enabled(grad_enabled):
            return function(item) if then is None else then(item, function(item), True)

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
    for item in items[len(in_parallel) :]:
        yield function(item) if then is None else then(item, function(item), True)


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Return the thread pool for `count` lanes; it is cached, so that each thread reuses its memory in the next
    step.
    """
    return ThreadPoolExecutor(count, "lane", initializer=partial(setattr, _lane, "lane_count", count))
