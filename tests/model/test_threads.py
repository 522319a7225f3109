"""As many threads as find a core: others are seen, this process and what gives way are not; no bit of an answer
changes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
import torch
from same_bits import same
from tiny_models import base_of

from trimtab.inference.engine import Engine, Request
from trimtab.model import threads
from trimtab.model.attention import PackedSequences
from trimtab.model.threads import (
    OtherPrograms,
    ProcessorShare,
    limit_threads_to_quota,
    limit_to_free_cores,
    threads_for_cores,
)

COUNTING = "print(flush=True)\nwhile True: pass"


@pytest.fixture
def two_threads(threads: Callable[[int], None]) -> None:
    threads(2)


@pytest.fixture
def torch_threads(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Sets how many threads torch has, for a test."""
    setting: Callable[[int], None] = request.getfixturevalue("threads")
    return setting


@pytest.fixture
def others(monkeypatch):
    """Sets how many cores others take."""

    def take(cores: float) -> None:
        monkeypatch.setattr(threads._others, "cores", lambda: cores)
        monkeypatch.setattr(threads, "cpu_ids", lambda: [0, 1])

    return take


@contextmanager
def counting(code: str = COUNTING) -> Iterator[psutil.Process]:
    """A program that is busy from here on."""
    busy = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        with busy.stdout:
            busy.stdout.readline()
        yield psutil.Process(busy.pid)
    finally:
        busy.kill()
        busy.wait()


def seen_while(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """What is seen of others over that time, and what the process had of it, in cores."""

    def had() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    looked, began, before = OtherPrograms(), time.monotonic(), had()
    time.sleep(seconds)
    return looked.cores(), (had() - before) / (time.monotonic() - began)


@pytest.mark.parametrize(
    ("count", "allowed", "taken", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.45, 2),  # less than half a core: sharing is still faster
        (2, 2, 0.6, 1),
        (2, 2, 2.0, 1),
        (2, 2, 9.0, 1),
        (8, 16, 7.0, 8),  # others have cores of their own
        (16, 16, 3.2, 13),
        (1, 2, 0.0, 1),
    ],
)
def test_a_thread_that_finds_no_core_is_given_up(count, allowed, taken, expected):
    assert threads_for_cores(count, allowed, taken) == expected


@pytest.mark.parametrize(("allowed", "own", "left"), [(1, None, 1), (64, None, 2), (1, "2", 2)])
def test_a_containers_quota_bounds_the_threads_unless_the_user_says(two_threads, monkeypatch, allowed, own, left):
    monkeypatch.setattr(threads, "cores", lambda: allowed)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    limit_threads_to_quota()
    assert torch.get_num_threads() == left


def test_inside_there_are_as_many_threads_as_fit_and_afterwards_all_again(two_threads, others):
    others(1.0)
    with limit_to_free_cores():
        assert torch.get_num_threads() == 1
        with limit_to_free_cores():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="within"), limit_to_free_cores():
        raise ValueError("within")
    assert torch.get_num_threads() == 2
    others(0.1)
    with limit_to_free_cores():
        assert torch.get_num_threads() == 2


def test_a_busy_program_is_seen():
    with counting() as process:
        seen, had = seen_while(process, 0.6)
    assert seen >= 0.8 * had - 0.05  # whatever else runs here comes on top


@pytest.fixture
def clocks(monkeypatch):
    """The clocks that are looked at, one core's times among them, all at nought; a test sets them."""
    times = psutil.cpu_times(percpu=True)[0]
    told = {"core": times._replace(**dict.fromkeys(times._fields, 0.0)), "own": 0.0, "now": 100.0}
    monkeypatch.setattr(threads, "cpu_ids", lambda: [0])
    monkeypatch.setattr(threads, "_runs_at_low_priority", lambda: False)
    monkeypatch.setattr(threads.psutil, "cpu_times", lambda percpu: [told["core"]])
    monkeypatch.setattr(threads.time, "process_time", lambda: told["own"])
    monkeypatch.setattr(threads.time, "monotonic", lambda: told["now"])
    return told


def test_what_others_take_is_without_own_work_and_idling(clocks):
    looked = OtherPrograms()
    clocks["core"] = clocks["core"]._replace(user=3.0, system=1.0, idle=6.0)
    clocks["own"], clocks["now"] = 3.5, 110.0
    assert looked.cores() == pytest.approx(0.05)
    clocks["core"], clocks["now"] = clocks["core"]._replace(user=12.0), 110.1
    assert looked.cores() == pytest.approx(0.05)  # not looked at again so soon
    clocks["now"] = 120.0
    assert looked.cores() == pytest.approx(0.9)
    clocks["own"], clocks["now"] = 30.0, 121.0  # two clocks never agree to the tick
    assert looked.cores() == 0.0


def test_a_program_of_lower_priority_counts_only_where_this_one_gives_way_too(clocks, monkeypatch):
    clocks["core"] = clocks["core"]._replace(user=3.0, nice=50.0)
    assert threads._seconds_of_others() == 3.0
    monkeypatch.setattr(threads, "_runs_at_low_priority", lambda: True)
    assert threads._seconds_of_others() == 53.0


def test_cores_that_a_container_numbers_anew_are_all_looked_at(clocks, monkeypatch):
    monkeypatch.setattr(threads, "cpu_ids", lambda: [6, 7])
    clocks["core"] = clocks["core"]._replace(user=3.0)
    assert threads._seconds_of_others() == 3.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(576, 192), (576, 1536), (1536, 576), (576, 49152)])  # SmolLM2-135M's
def test_a_product_of_a_real_size_is_the_same_on_one_thread_and_on_two(two_threads, dtype, shape):
    draw = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(*shape, bias=False, dtype=dtype)
    for tokens in (1, 3, 16, 130):
        input_NI, found = torch.randn(tokens, shape[0], generator=draw).to(dtype), []
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(layer(input_NI))
        assert same(*found)


def test_answers_are_the_same_to_the_bit_on_any_number_of_threads(two_threads, others):
    """Otherwise what was measured on a quiet machine would not be what is served on a busy one."""
    base, draw = base_of("llama", torch.bfloat16), random.Random(0)
    for lengths in ([1], [3, 40], [200], [17] * 20):
        ids_N = torch.tensor([draw.randrange(5, 60) for _ in range(sum(lengths))])
        layout, found = PackedSequences(lengths), []
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.inference_mode():
                found.append(base.logits(base.hidden(ids_N, layout.positions_N, layout)))
        assert same(*found)
    asked = [
        Request(id=str(place), ids=tuple(draw.randrange(5, 60) for _ in range(30)), max_new=8) for place in range(5)
    ]
    answers = []
    for taken in (0.0, 1.0):
        others(taken)
        answers.append([one.ids for one in Engine(base, frozenset()).generate(asked)])
    assert answers[0] == answers[1]


def test_a_pass_of_the_engine_runs_on_the_cores_that_are_free(two_threads, others, monkeypatch):
    base, seen = base_of("llama", torch.bfloat16), []
    hidden = type(base).hidden

    def watched(self, *given):
        seen.append(torch.get_num_threads())
        return hidden(self, *given)

    monkeypatch.setattr(type(base), "hidden", watched)
    engine = Engine(base, frozenset())
    for taken in (0.0, 1.0):
        others(taken)
        engine.generate([Request(id="one", ids=(5, 6, 7), max_new=3)])
    assert set(seen[: len(seen) // 2]) == {2}
    assert set(seen[len(seen) // 2 :]) == {1}
    assert torch.get_num_threads() == 2


def test_the_share_of_the_processor_is_what_others_leave_for_the_threads(clocks, monkeypatch, torch_threads):
    monkeypatch.setattr(threads, "cpu_ids", lambda: [0, 1])
    monkeypatch.setattr(threads.psutil, "cpu_times", lambda percpu: [clocks["core"]] * 2)
    for number, others, left in ((2, 0.0, 1.0), (2, 1.0, 0.5), (1, 1.0, 1.0), (1, 1.5, 0.5), (2, 2.5, 0.0)):
        torch_threads(number)
        with ProcessorShare() as processor:
            # both cores told alike: half of what others took in ten seconds each, and four seconds of our own
            clocks["core"] = clocks["core"]._replace(user=clocks["core"].user + 5 * others + 2)
            clocks["own"], clocks["now"] = clocks["own"] + 4, clocks["now"] + 10
        assert processor.share == pytest.approx(left)
    with ProcessorShare() as processor:
        clocks["now"] += 0.1
    assert processor.share is None, "too short to be counted in hundredths of a second"


def test_a_program_that_takes_a_core_is_seen_in_the_share(two_threads):
    with counting(), counting(), ProcessorShare() as processor:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            pass
    assert processor.share is not None
    assert processor.share < 0.9 or len(threads.cpu_ids()) > 3
