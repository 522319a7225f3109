"""Searching on dev: what is tried, in which time, and that a search that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from study_tasks import CLASSIFY, LABELLED, write_task

from trimtab.arms.contexts import Context, context_for
from trimtab.arms.search.context_search import (
    SEARCH_SPACES,
    choose_context,
    plan_context_search,
    rounds,
)
from trimtab.arms.search.instructions import instruction_variants
from trimtab.arms.search.trials import FIRST_ROWS, ContextScores
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task, parse_arm

Ask = Callable[[Context, Sequence[Example]], tuple[Mapping[str, float], float]]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Session:
    from study_tasks import rows_of

    folder = tmp_path_factory.mktemp("search")
    data = f"{LABELLED}\nsplit = {{ dev = 0.4, test = 0.2, seed = 0 }}"
    task = write_task(
        folder,
        tiny_model_folder,
        ["prompt", "few-shot"],
        rows=rows_of(400),
        task=CLASSIFY,
        data=data,
        effort="standard",
    )
    return open_session(open_workspace(load_task(task)))


def scored(value: Callable[[Context], float], seconds: float = 1.0) -> tuple[Ask, list[tuple[Context, int]]]:
    """Answers that score by their context alone, each question taking some seconds, and what was asked."""
    asked: list[tuple[Context, int]] = []

    def ask(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        asked.append((context, len(rows)))
        return {row.id: value(context) for row in rows}, seconds * len(rows)

    return ask, asked


def test_one_thing_after_the_other_is_chosen_and_the_best_is_kept(session: Session) -> None:
    texts = instruction_variants(
        session.task, session.workspace.labels, session.workspace.splits["train"], passages=False
    )
    ask, asked = scored(lambda one: (one.instruction == texts[1]) + 0.1 * one.shots - 0.05 * one.draw)
    context, effort = choose_context(
        session, parse_arm("few-shot", session.task), ContextScores(None, ask), "standard", 1e9
    )
    assert (context.instruction, context.shots, context.draw) == (texts[1], 8, 0)
    assert effort is not None
    assert [trial.what["shots"] for trial in effort.trials if trial.kept] == [8]
    assert (effort.stopped, effort.improving) == ("no trial was better", False)
    assert effort.seconds == sum(count for _, count in asked) == sum(trial.seconds for trial in effort.trials)
    assert max(trial.rows for trial in effort.trials) <= SEARCH_SPACES["standard"].rows
    by_halving = {trial.rows for trial in effort.trials}
    assert FIRST_ROWS in by_halving
    assert len(by_halving) > 1


def test_of_equals_the_present_one_stays(session: Session) -> None:
    arm = parse_arm("few-shot", session.task)
    ask, _ = scored(lambda _: 0.5)
    assert choose_context(session, arm, ContextScores(None, ask), "standard", 1e9)[0] == context_for(arm)


def test_without_effort_nothing_is_asked(session: Session) -> None:
    arm = parse_arm("few-shot", session.task)
    ask, asked = scored(lambda _: 0.5)
    assert choose_context(session, arm, ContextScores(None, ask), "none", 1e9) == (context_for(arm), None)
    assert asked == []


@pytest.mark.parametrize("seconds", [0.0, 40.0, 150.0, 400.0])
def test_the_time_is_kept_and_what_it_cut_is_told(session: Session, seconds: float) -> None:
    arm = parse_arm("few-shot", session.task)
    ask, asked = scored(lambda one: 0.1 * one.shots)
    _, effort = choose_context(session, arm, ContextScores(None, ask), "standard", seconds)
    assert effort is not None
    first = asked[0][1]  # what one question takes is known after these
    assert sum(count for _, count in asked) <= max(seconds, first)
    assert effort.stopped == "budget"


def test_as_many_questions_are_asked_as_was_planned(session: Session) -> None:
    for name in ("prompt", "few-shot"):
        arm = parse_arm(name, session.task)
        ask, asked = scored(lambda one: 0.1 * one.shots + 0.01 * len(one.instruction or ""))
        choose_context(session, arm, ContextScores(None, ask), "standard", 1e9)
        told = sum(trial.seconds for trial in plan_context_search(session, arm, "standard", 1.0))
        assert 0.5 * told <= sum(count for _, count in asked) <= told


def test_a_killed_search_goes_on_with_the_trial_that_it_was_at(session: Session, tmp_path: Path) -> None:
    arm, file = parse_arm("few-shot", session.task), tmp_path / "search.jsonl"
    plain, _ = scored(lambda one: 0.1 * one.shots)
    whole = choose_context(session, arm, ContextScores(None, plain), "standard", 1e9)
    left = 5

    def dying(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return plain(context, rows)

    with pytest.raises(KeyboardInterrupt):
        choose_context(session, arm, ContextScores(file, dying), "standard", 1e9)
    with file.open("ab") as cut:
        cut.write(b'{"context": {"pas')  # killed while it wrote
    ask, again = scored(lambda one: 0.1 * one.shots)
    assert choose_context(session, arm, ContextScores(file, ask), "standard", 1e9) == whole
    fresh, everything = scored(lambda one: 0.1 * one.shots)
    choose_context(session, arm, ContextScores(None, fresh), "standard", 1e9)
    assert sum(count for _, count in again) < sum(count for _, count in everything)


def test_what_the_task_file_fixes_is_not_tried(session: Session) -> None:
    arm = parse_arm("few-shot", session.task)
    fixed = type(arm)(name="own", weights="base", stages=(), context="few-shot", settings={"shots": 3})
    tried = [
        one(context_for(fixed))[0] for one in rounds(session, fixed, context_for(fixed), SEARCH_SPACES["standard"])
    ]
    assert tried == ["instruction"]


def test_wordings_say_how_to_answer_and_keep_what_the_user_wrote(session: Session) -> None:
    labels, train = session.workspace.labels, session.workspace.splits["train"]
    found = instruction_variants(session.task, labels, train, passages=False)
    assert len(set(found)) == len(found) > 2
    assert all(text.startswith(session.task.task.instruction) for text in found)
    assert any(all(label in text for label in labels) for text in found)
    own = [
        Example(id=row.id, messages=(Message(role="system", content="x"), *row.messages), references=row.references)
        for row in train
    ]
    assert instruction_variants(session.task, labels, own, passages=False) == ()
    many = [f"a label of its own {number}" for number in range(200)]
    assert not any(many[0] in text for text in instruction_variants(session.task, many, train, passages=False))
