"""The session: what many prompts share is read once."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.task import load_task
from trimtab.data.prompts import ChatEncoder
from trimtab.inference import label_scoring as choose


def test_closed_sets_hold_their_prefix_and_answer_alone_as_together(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = write_task(tmp_path, tiny_model_folder, ["few-shot"], rows=rows_of(80), task=CLASSIFY, data=LABELLED)
    session = open_session(open_workspace(load_task(task)))
    test = session.workspace.splits["test"]
    prompts = PromptBuilder(session, Context(shots=2, shot_kind="few-shot")).prompts(test)
    together = session.answer(prompts)
    read: list[int] = []
    real = choose.read_prefix

    def counted(base, ids):
        read.append(len(ids))
        return real(base, ids)

    monkeypatch.setattr(choose, "read_prefix", counted)
    alone = session.label_chooser(prompts[:8], None)
    assert len(read) == 1
    assert read[0] > 60  # the instruction and both shots
    one_by_one = [alone(prompt) for prompt in prompts]
    assert len(read) == 1  # no question pays for it again
    assert [one.text for one in one_by_one] == [one.text for one in together]
    for one, other in zip(one_by_one, together, strict=True):
        assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)


def test_rows_that_surely_fit_are_not_tokenized_and_the_same_ones_are_refused(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(60)
    for number in range(0, 60, 3):
        rows[number]["question"] += " xyz" * (2 * number) + str(number)
    workspace = open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt"], rows=rows)))
    monkeypatch.setattr("trimtab.arms.session.too_many_refused", lambda *_: False)
    tokenized: list[int] = []
    plain = ChatEncoder.prompt
    monkeypatch.setattr(ChatEncoder, "prompt", lambda own, asked: tokenized.append(1) or plain(own, asked))
    bounded = open_session(workspace).workspace
    some = len(tokenized)
    monkeypatch.setattr(ChatEncoder, "most_tokens", lambda *_: math.inf)
    exact = open_session(workspace).workspace
    assert 0 < some < 30
    assert len(tokenized) - some == 60
    assert (bounded.splits, bounded.refusals) == (exact.splits, exact.refusals)
    assert 3 < len(bounded.refusals) < some
