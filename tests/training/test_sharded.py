"""Several processes train as one does: the same losses and weights, the same bits on every process; what one saves,
any number goes on with; a lost process ends the others in one line."""

import itertools
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from sharded_worker import STEPS, Group, launched, name_of, result_of
from tiny_models import base_of, plain_model

from trimtab.base.errors import InputError
from trimtab.model.adapters.apply import load_adapter
from trimtab.model.attention import PackedSequences
from trimtab.model.process_group import launch_of
from trimtab.training.parallel import divided_by_size

pytestmark = [
    pytest.mark.no_kernels,
    pytest.mark.any_processor,  # processes are compared with each other
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked"),
]

CASES = (
    *("lora:sft:llama", "full:weighted:tied llama", "full:sft:qwen2", "freeze:sft:llama"),
    *("lora:head:llama", "full:reward:llama", "lora:dpo:llama"),
)
BY_FOUR = ("lora:sft:llama", "full:sft:qwen2", "full:reward:llama")  # the rest of CASES in `make test-stress`
OTHERS = (  # with two processes only
    *("dora:sft:qwen2", "pissa:sft:llama", "vera:sft:llama", "ia3:sft:llama", "bitfit:sft:llama", "oft:sft:llama"),
    *("loha:sft:llama", "rslora:sft:phi3", "soft-prompt:sft:llama", "prefix:sft:gemma3"),
    *("full:head:llama", "lora:kto:qwen2"),
)
SAVED = ("lora:sft:llama", "full:sft:qwen2")  # weights that are whole on every process, and divided ones


def done(group):
    return {str(rank): [0, "done"] for rank in range(group.size)}


def numbers(found, what):
    value = found[what]
    parts = value.values() if isinstance(value, dict) else value
    return torch.tensor(list(itertools.chain.from_iterable(parts)), dtype=torch.float64)


def assert_equal(found, expected, within=1e-5):
    for what in ("losses", "weights", "dev"):
        assert len(numbers(expected, what))
        assert torch.allclose(numbers(found, what), numbers(expected, what), rtol=within, atol=within), what


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All cases with 1 and 2 processes, three of them with 4 too."""
    home = tmp_path_factory.mktemp("equal")
    cases = {1: CASES + OTHERS, 2: CASES + OTHERS, 4: BY_FOUR}
    groups = {size: Group(folder=str(home / str(size)), size=size, cases=cases[size]) for size in cases}
    assert launched(*groups.values()) == [done(group) for group in groups.values()]
    return groups


@pytest.mark.parametrize("case", CASES + OTHERS)
def test_several_processes_train_as_one(trained, case):
    alone = result_of(trained[1], case)
    assert alone["steps"] == STEPS
    assert len(alone["losses"]) == STEPS
    for size in (2, 4) if case in BY_FOUR else (2,):
        together = [result_of(trained[size], case, rank) for rank in range(size)]
        assert_equal(together[0], alone)
        assert all(one == together[0] for one in together)  # to the bit


@pytest.mark.stress
def test_four_processes_train_as_one(trained, tmp_path):
    cases = tuple(case for case in CASES if case not in BY_FOUR)
    group = Group(folder=str(tmp_path), size=4, cases=cases)
    assert launched(group) == [done(group)]
    for case in cases:
        together = [result_of(group, case, rank) for rank in range(4)]
        assert_equal(together[0], result_of(trained[1], case))
        assert all(other == together[0] for other in together)  # to the bit


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_whole_and_without_the_base(trained, case):
    most = 4 if case in BY_FOUR else 2
    expected, found = (Path(trained[size].folder) / name_of(case) / "adapter" for size in (1, most))
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())
    for path in expected.glob("*.safetensors"):
        ours, theirs = load_file(found / path.name), load_file(path)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    method, _, family = case.split(":")
    load_adapter(base_of(family), found)
    own = sum(load_file(path)[name].nbytes for path in found.glob("*.safetensors") for name in load_file(path))
    saved = sum(path.stat().st_size for path in (found.parent / "checkpoints").rglob("weights*.safetensors"))
    kept = len(list((found.parent / "checkpoints").glob("step-*")))
    heads = 3 * 32 * 4 if case.split(":")[1] in ("head", "reward") else 0
    if method not in ("pissa", "vera"):  # saved for PEFT with more than is trained
        assert saved < kept * (own + heads + 20_000)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks the old name
def test_an_adapter_of_four_processes_loads_in_peft(trained):
    folder = Path(trained[4].folder) / name_of("lora:sft:llama") / "adapter"
    ours = base_of("llama")
    load_adapter(ours, folder)
    theirs = PeftModel.from_pretrained(plain_model("llama"), folder)
    ids = torch.arange(3, 20)[None]
    layout = PackedSequences([17])
    with torch.no_grad():
        hidden = ours.hidden(ids[0], layout.positions_N, layout)
        assert torch.allclose(ours.logits(hidden), theirs(input_ids=ids).logits[0], atol=1e-4)


@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (4, 1), (1, 2)])
def test_saved_by_some_and_gone_on_with_by_others(trained, sizes, tmp_path):
    first, then = (Group(folder=str(tmp_path), size=size, cases=SAVED) for size in sizes)
    begun = Group(folder=str(tmp_path), size=first.size, cases=SAVED, until=9)
    assert launched(begun, then) == [done(begun), done(then)]
    for case in SAVED:
        found, expected = result_of(then, case), result_of(trained[1], case)
        assert len(found["losses"]) == STEPS - 9
        assert_equal({**found, "losses": expected["losses"][:9] + found["losses"]}, expected)


@pytest.mark.parametrize(("size", "hit", "cases"), [(2, 0, SAVED[:1]), (2, 1, SAVED[1:]), (4, 2, SAVED[1:])])
def test_a_killed_process_ends_the_others_in_one_line_and_resumed_is_never_killed(trained, size, hit, cases, tmp_path):
    group = Group(folder=str(tmp_path), size=size, cases=cases)
    dying = Group(folder=str(tmp_path), size=size, cases=cases, at=7, hit=hit, sends="SIGKILL")
    ended, resumed = launched(dying, group)
    assert ended.pop(str(hit)) == [-9, ""]
    for code, said in ended.values():
        assert code == 3
        assert f"rank {hit} of {size} is gone" in said
        assert len(said.splitlines()) == 1
    assert resumed == done(group)
    for rank in range(size):
        found, expected = result_of(group, cases[0], rank), result_of(trained[size], cases[0], rank)
        assert len(found["losses"]) < STEPS
        assert found["weights"] == expected["weights"]  # to the bit


def test_a_stopped_process_ends_the_others_after_a_bounded_time(tmp_path):
    group = Group(folder=str(tmp_path), size=2, at=3, hit=1, sends="SIGSTOP", silent_seconds=8.0, patience=50.0)
    (found,) = launched(group)
    code, said = found["0"]
    assert code == 3
    assert "rank 1 of 2 is gone (killed, stuck, or not reached)" in said
    assert found["1"][0] == "hung"


@pytest.mark.parametrize("hit", [0, 1])
def test_a_signal_to_one_stops_all_with_everything_saved(trained, hit, tmp_path):
    stopped = Group(folder=str(tmp_path), size=2, cases=SAVED[:1], at=5, hit=hit, sends="SIGTERM")
    group = Group(folder=str(tmp_path), size=2, cases=SAVED[:1])
    ended, resumed = launched(stopped, group)
    expected = f"StoppedError: stopped at step 6 of {STEPS}, all saved; go on with --resume"
    assert ended == {str(rank): [3, expected] for rank in range(2)}
    assert resumed == done(group)
    assert result_of(group, SAVED[0])["weights"] == result_of(trained[2], SAVED[0])["weights"]


def test_processes_that_do_not_find_each_other_say_who_is_missing(tmp_path):
    missing = Group(folder=str(tmp_path / "a"), size=3, absent=(2,), join_seconds=1.0)
    nowhere = Group(folder=str(tmp_path / "b"), size=2, absent=(0,), join_seconds=1.0)
    two, one = launched(missing, nowhere)
    for code, said in two.values():
        assert code == 2
        assert said.startswith("InputError: rank 2 of 3 did not arrive in 1 s; start all 3 processes")
    ((code, said),) = one.values()
    assert code == 2
    assert "rank 1 of 2 found no rank 0 at MASTER_ADDR 127.0.0.1:" in said
    assert len(said.splitlines()) == 1


def test_processes_that_begin_with_different_things_are_refused(tmp_path):
    (found,) = launched(Group(folder=str(tmp_path), size=2, versions={"1": "2"}))
    expected = (
        "InputError: version of Trimtab differs: 1 on rank 0 and 2 on rank 1; "
        "give all processes the same, and start them again"
    )
    assert found == {"0": [2, expected], "1": [2, expected]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    (found,) = launched(Group(folder=str(tmp_path), size=2, environment={"CUDA_VISIBLE_DEVICES": "0"}))
    assert [code for code, _ in found.values()] == [2, 2]
    assert all("CUDA_VISIBLE_DEVICES=0 asks for GPUs, and torch finds none" in said for _, said in found.values())


RIGHT = {"WORLD_SIZE": "4", "RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set; start all of them with: torchrun --nproc-per-node 4"),
        ({"RANK": "", "MASTER_PORT": ""}, "RANK, MASTER_PORT is not set"),
        ({"RANK": "4"}, "RANK=4 is not below WORLD_SIZE=4"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE='many' is no number"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK='-1' is no number"),
    ],
)
def test_variables_that_are_missing_or_contradict_each_other_are_refused(wrong, said):
    assert launch_of(RIGHT).rank == 1
    with pytest.raises(InputError, match=said):
        launch_of({**RIGHT, **wrong})


@pytest.mark.parametrize("alone", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_one_process_is_no_group(alone):
    assert launch_of(alone) is None


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 9))
def test_items_are_divided_once_each_and_no_share_is_larger_than_it_must_be(sizes, parts):
    shares = divided_by_size(sizes, parts)
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(len(sizes)))
    work = [sum(sizes[number] for number in share) for share in shares]
    assert max(work) <= sum(sizes) / parts + max(sizes, default=0)
