"""What answering a batch is foretold to need, against what the engine then allocates."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_tasks import write_task

from trimtab.answering.cache import Slots
from trimtab.answering.engine import Engine, Request
from trimtab.arms.session import open_session
from trimtab.arms.timing import _Timing, predict
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task
from trimtab.model.load import load_base
from trimtab.training.predict import answering_mb


@pytest.mark.parametrize(("count", "length", "new"), [(5, 20, 40), (40, 100, 28), (64, 60, 4)])
def test_keys_and_values_take_what_was_foretold(
    count: int, length: int, new: int, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, most = load_base(tiny_model_folder, "fp32"), [0]
    append = Slots.append

    def watched(slots: Slots, *given: object) -> None:
        append(slots, *given)  # type: ignore[arg-type]
        most[0] = max(most[0], sum(tensor.nbytes for tensor in (*slots.keys, *slots.values)))

    monkeypatch.setattr(Slots, "append", watched)
    prompts = [tuple(4 + (place * 7 + number) % 250 for place in range(length)) for number in range(count)]
    Engine(base, frozenset()).generate([Request(id=f"{n}", ids=ids, max_new=new) for n, ids in enumerate(prompts)])
    foretold = answering_mb(base, count, length + new, 0) - answering_mb(base, count, 0, 0)
    assert most[0] / 1e6 == pytest.approx(foretold, rel=0.15)


def test_a_batch_needs_more_than_the_few_questions_that_are_timed(tmp_path: Path, tiny_model_folder: Path) -> None:
    session = open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt", "few-shot"]))))
    timing = _Timing(session, None)
    assert timing._answering_mb(200) > timing._answering_mb(20) > 0
    plans = predict(session, session.task.arms)
    held = [plan.memory_mb for plan in plans]
    assert min(value for value in held if value is not None) > 100  # the process itself is in it
