"""The memory predicted for answering a batch, compared with what the engine then allocates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.arms.planning.answering_rate import answer_tokens
from trimtab.arms.planning.memory import _pass_tokens, answering_memory
from trimtab.arms.planning.predict import predict
from trimtab.arms.recipe import recipe_for
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.machine import MemoryUse
from trimtab.base.records import Encoded
from trimtab.base.task import load_task
from trimtab.inference.engine import Engine, Request
from trimtab.inference.kv_cache import KVCache, slots_for
from trimtab.model.load import load_base
from trimtab.training import activation_memory
from trimtab.training.batch import MICRO_TOKENS, TrainingRow, micro_batches, pack_rows
from trimtab.training.estimates import TrainingRate, inference_mb
from trimtab.training.rl import GROUP


@pytest.mark.parametrize(("count", "length", "new"), [(5, 20, 40), (40, 100, 28), (64, 60, 4)])
def test_keys_and_values_take_what_was_foretold(
    count: int, length: int, new: int, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, most = load_base(tiny_model_folder, "fp32"), [0]
    append = KVCache.append

    def watched(slots: KVCache, *given: object) -> None:
        append(slots, *given)  # type: ignore[arg-type]
        most[0] = max(most[0], sum(tensor.nbytes for tensor in (*slots.keys, *slots.values)))

    monkeypatch.setattr(KVCache, "append", watched)
    prompts = [tuple(4 + (place * 7 + number) % 250 for place in range(length)) for number in range(count)]
    Engine(base, frozenset()).generate([Request(id=f"{n}", ids=ids, max_new=new) for n, ids in enumerate(prompts)])
    foretold = inference_mb(base, count, length + new, 0) - inference_mb(base, count, 0, 0)
    assert most[0] / 1e6 == pytest.approx(foretold, rel=0.15)


def test_a_batch_lies_where_one_of_nearly_as_many_lay(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are freed are of no use to slightly larger ones, and a process would hold both."""
    base, sizes = load_base(tiny_model_folder, "fp32"), []
    append = KVCache.append

    def watched(slots: KVCache, *given: object) -> None:
        append(slots, *given)  # type: ignore[arg-type]
        sizes[-1] |= {tensor.nbytes for tensor in (*slots.keys, *slots.values)}

    monkeypatch.setattr(KVCache, "append", watched)
    for count in (43, 44):
        sizes.append(set())
        prompts = [(4 + number, *range(60, 80)) for number in range(count)]
        Engine(base, frozenset()).generate([Request(id=f"{n}", ids=ids, max_new=4) for n, ids in enumerate(prompts)])
    assert len(sizes[0]) == 1
    assert sizes[0] == sizes[1]
    assert [slots_for(count) for count in (1, 7, 8, 9, 64)] == [1, 7, 8, 16, 64]


def test_a_batch_needs_more_than_the_few_questions_that_are_timed(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt", "few-shot"]))))
    assert answering_memory(session, 200, 40) > answering_memory(session, 20, 40) > answering_memory(session, 20, 4) > 0
    plans = predict(session, session.task.arms)
    held = [plan.memory_mb for plan in plans]
    assert min(value for value in held if value is not None) > 100  # the process itself is in it


def test_the_plan_says_that_an_arm_recomputes_its_layers(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt", "lora"]))))
    monkeypatch.setattr(activation_memory, "memory_use", lambda: MemoryUse(1 << 40, 1 << 40))
    assert [plan.note for plan in predict(session, session.task.arms)] == [None, None]
    monkeypatch.setattr(activation_memory, "memory_use", lambda: MemoryUse(1 << 40, 0))
    without, lora = predict(session, session.task.arms)
    assert without.note is None
    assert lora.note is not None
    assert lora.note.endswith("longer passes compute their layers again (activation checkpointing)")
    assert lora.memory_mb is not None


@pytest.mark.parametrize("output_tokens", [6, 200])
def test_passes_over_drawn_answers_are_foretold_as_large_as_a_step_of_them_is(
    output_tokens: int, tmp_path: Path, tiny_model_folder: Path, threads: Callable[[int], None]
) -> None:
    threads(2)  # as many lanes
    task = write_task(tmp_path, tiny_model_folder, ["lora-grpo"], more="[reward]\nexact_match = 1.0\n")
    session = open_session(open_workspace(load_task(task)))
    session.output_tokens = output_tokens
    arm = next(one for one in session.task.arms if one.name == "lora-grpo")
    made, length = recipe_for(session, arm, 0), 60
    made = replace(made, stages=made.stages[-1:])  # nothing was imitated before that
    read = []
    for number in range(made.batch):
        prompt = tuple(range(10 * number, 10 * number + length))
        answers = [tuple(range(900 + answer, 900 + answer + output_tokens)) for answer in range(GROUP)]
        read.append(
            tuple(
                TrainingRow(encoded=Encoded(ids=prompt + one, trained=(False,) * len(prompt + one))) for one in answers
            )
        )
    passes = [len(pack_rows([row for unit in part for row in unit]).ids_N) for part in micro_batches(read)]
    beside = sum(sorted(passes)[-2:])
    short = TrainingRate(tokens_per_second=1.0, pass_tokens=10)
    foretold = _pass_tokens(session, made, short, length + answer_tokens(session))
    if output_tokens == 6:  # all in one pass a lane
        assert beside <= foretold < 1.1 * beside
    else:
        assert foretold == 2 * MICRO_TOKENS
