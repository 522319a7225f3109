"""Worked examples chosen row by row, and the choice across folds that guards against luck."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_tasks import CLASSIFY, LABELLED, rows_of, write_task

from trimtab.arms.contexts import Context, PromptBuilder, context_for, require_chosen, saved_context
from trimtab.arms.search.context_search import choose_context, plan_context_search
from trimtab.arms.search.shot_search import POOL, shot_orders, shot_sets, valued_sets, with_shots
from trimtab.arms.search.trials import ContextScores, best_across_folds
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task, parse_arm


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Session:
    data = f"{LABELLED}\nsplit = {{ dev = 0.4, test = 0.2, seed = 0 }}"
    task = write_task(
        *(tmp_path_factory.mktemp("shots"), tiny_model_folder, ["few-shot"]),
        rows=rows_of(300),
        task=CLASSIFY,
        data=data,
        effort="thorough",
    )
    return open_session(open_workspace(load_task(task)))


def rows_with_groups(count: int, size: int = 1) -> list[Example]:
    turn = (Message(role="user", content="?"),)
    return [Example(id=f"r{n}", messages=turn, references=("a",), group=f"g{n // size}") for n in range(count)]


def test_sets_are_rows_of_train_each_in_several(session: Session) -> None:
    train, now = session.workspace.splits["train"], Context(shots=4, shot_kind="few-shot")
    sets = shot_sets(train, now, 12)
    assert sets[0] == now
    assert sets == shot_sets(train, now, 12)  # a search that goes on draws the same
    ids = {row.id for row in train}
    drawn = [option.shot_ids for option in sets[1:]]
    assert all(len(set(own)) == 4 and ids.issuperset(own) for own in drawn)
    assert len({name for own in drawn for name in own}) <= 4 * POOL
    assert shot_sets(train[:3], now, 12) == (now,)  # no other set of as many


def test_the_most_valued_rows_are_the_set_the_best_one_last(session: Session) -> None:
    """Where every row adds its own worth to a set, the rows of the highest worth are found."""
    train, now = session.workspace.splits["train"], Context(shots=2, shot_kind="few-shot")
    sets = shot_sets(train, now, 60)
    names = sorted({name for option in sets for name in option.shot_ids})
    worth = {name: 2.0**number for number, name in enumerate(names)}

    def known(option: Context) -> Mapping[str, float]:
        return {"q": sum(worth[name] for name in option.shot_ids)}

    best = valued_sets(train, now, 60, known)[1]
    assert best.shot_ids == tuple(names[-2:])
    assert len(valued_sets(train, now, 60, lambda _: {})) == 2  # a plan counts it
    assert valued_sets(train[:2], now, 60, known) == (now,)


def test_orders_hold_the_same_rows(session: Session) -> None:
    train, now = session.workspace.splits["train"], Context(shots=4, shot_kind="few-shot", draw=1)
    orders = shot_orders(train, now, 4)
    assert orders[0] == now
    assert 1 < len(orders) <= 5
    drawn = [shot.id for shot in PromptBuilder(session, now).fixed]
    assert all(sorted(option.shot_ids) == sorted(drawn) != list(option.shot_ids) for option in orders[1:])
    assert orders[1].shot_ids == tuple(drawn[::-1])


def test_prompts_show_the_chosen_rows_in_their_order(session: Session) -> None:
    train = session.workspace.splits["train"]
    context = with_shots(Context(shot_kind="few-shot"), [train[5].id, train[2].id])
    prompt = PromptBuilder(session, context).prompts(session.workspace.splits["test"][:1])[0]
    turns = [turn.content for turn in prompt.messages if turn.role == "user"]
    assert turns[:2] == [train[5].input, train[2].input]
    arm = parse_arm("few-shot", session.task)
    require_chosen(context.chosen())
    assert context_for(arm, context.chosen()) == context
    assert saved_context(json.loads(json.dumps(asdict(context)))) == context
    with pytest.raises(InputError, match="is not among the training rows"):
        PromptBuilder(session, with_shots(context, ["no such row"]))


@pytest.mark.parametrize("ids", ['"a"', "[]", "[1]", "{", "[" * 100_000, "[" + ", ".join(['"a"'] * 65) + "]"])
def test_a_strangers_list_of_rows_is_checked(ids: str) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        require_chosen({"shot_ids": ids})


def test_a_search_keeps_the_rows_that_help_and_says_what_it_asks(session: Session) -> None:
    arm, train = parse_arm("few-shot", session.task), session.workspace.splits["train"]
    helpful = set(sorted({name for option in shot_sets(train, context_for(arm), 8) for name in option.shot_ids})[::3])
    asked = 0

    def ask(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        nonlocal asked
        asked += len(rows)
        share = 0.2 + 0.2 * len(helpful.intersection(context.shot_ids))
        return {row.id: float(int(row.id[3:]) % 10 < 10 * share) for row in rows}, float(len(rows))

    context, effort = choose_context(session, arm, ContextScores(None, ask), "thorough", 1e9)
    assert effort is not None
    assert helpful.intersection(context.shot_ids)
    assert asked <= sum(trial.seconds for trial in plan_context_search(session, arm, "thorough", 1.0))
    assert any(trial.kept and trial.what.get("shot_ids") for trial in effort.trials)


@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from([30, 60]))
def test_the_former_option_stays_where_all_are_alike(seed: int, options: int, count: int) -> None:
    """Scores that differ by luck alone: another option is seldom taken, and never one that scored less."""
    draw, rows = random.Random(seed), rows_with_groups(count)
    contexts = [Context(draw=number) for number in range(options)]
    scores = {context: [float(draw.random() < 0.5) for _ in rows] for context in contexts}
    chosen = best_across_folds(scores, rows, contexts[0])
    assert chosen == contexts[0] or sum(scores[chosen]) == max(map(sum, scores.values())) > sum(scores[contexts[0]])


def test_choosing_across_folds_takes_less_luck_than_choosing_the_best() -> None:
    rows, contexts, taken, best = rows_with_groups(60), [Context(draw=n) for n in range(8)], 0, 0
    for seed in range(200):
        draw = random.Random(seed)
        scores = {context: [float(draw.random() < 0.5) for _ in rows] for context in contexts}
        taken += best_across_folds(scores, rows, contexts[0]) != contexts[0]
        best += max(scores, key=lambda context: sum(scores[context])) != contexts[0]
    assert taken < 0.35 * best


def test_a_lead_that_every_fold_shows_is_taken_and_one_of_a_single_group_is_not() -> None:
    former, other = Context(), Context(draw=1)
    rows = rows_with_groups(60, 12)
    steady = {former: [0.0, 1.0] * 30, other: [1.0, 1.0] * 30}
    assert best_across_folds(steady, rows, former) == other
    lucky = {former: [0.5] * 60, other: [1.0] * 12 + [0.4] * 48}  # ahead by one group of alike questions
    assert best_across_folds(lucky, rows, former) == former
