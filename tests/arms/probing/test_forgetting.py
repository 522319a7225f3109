"""Probe `forgetting`: the questions that come with Trimtab, and a model that lost what it knew."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from probed import probed_task, question, subject_of
from study_tasks import write_task

from trimtab.arms.probing.forgetting import changes_the_model, general_answers, general_questions
from trimtab.arms.probing.probe import adjusted, run_probes
from trimtab.arms.session import open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.grammar import arm_from_name
from trimtab.base.task import load_task


def test_three_hundred_questions_have_four_options_each_with_the_right_one_anywhere() -> None:
    asked = general_questions()
    assert len({one.question for one in asked}) == 300
    assert set(Counter(one.ability for one in asked).values()) == {30}
    assert all(len(set(one.options)) == 4 and one.answer in one.options for one in asked)
    assert set(Counter(one.options.index(one.answer) for one in asked).values()) == {75}


@pytest.mark.parametrize(("arm", "may"), [("lora", True), ("full", True), ("prompt", False), ("lora-head", False)])
def test_only_arms_whose_training_changes_what_writes_can_forget(arm: str, may: bool) -> None:
    named = arm_from_name(arm)
    assert named is not None
    assert changes_the_model(named) is may


def test_a_model_with_other_weights_takes_other_options_and_the_same_one_the_same(
    tmp_path: Path, tiny_model_folder: Path
) -> None:
    session = open_session(open_workspace(load_task(write_task(tmp_path, tiny_model_folder, ["prompt"]))), "fp32")
    before = general_answers(session)
    assert before == general_answers(session)
    with torch.no_grad():
        for weights in session.base.model.parameters():
            weights.neg_()
    assert [one.answer for one in before] != [one.answer for one in general_answers(session)]


def test_lost_knowledge_is_found_and_kept_knowledge_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = probed_task(tmp_path)
    plain = [question(n, one.question, one.answer) for n, one in enumerate(general_questions())]
    known = tuple(subject_of(task, plain, lambda one: plain[int(one.id[3:])].references[0]).answers.values())
    lost = tuple(replace(one, score=0.0) if n % 10 == 0 else one for n, one in enumerate(known))
    for now, found in ((lost, True), (known, False)):
        session: Any = SimpleNamespace(task=task)
        monkeypatch.setattr("trimtab.arms.probing.forgetting.general_answers", lambda _, now=now: now)
        subject = replace(subject_of(task, plain[:1], lambda _: ""), session=session, untrained=known)
        (one,) = adjusted(run_probes(subject, ["forgetting"]), 0.02)
        assert (one.found, one.n, one.change) == (found, 300, "on general questions")
