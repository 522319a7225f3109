"""Prompts of a context: shots and passages, in answering and in training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cross_encoder import save_cross_encoder
from study_tasks import UNKNOWN, rows_of, write_task

from trimtab.arms.contexts import (
    USUAL_MIX,
    Context,
    NearestShots,
    PassageMix,
    PromptBuilder,
    context_for,
    draw_fixed_shots,
)
from trimtab.arms.fingerprint import fingerprint_rows
from trimtab.arms.objectives import StageSetup, build_supervised
from trimtab.arms.recipe import recipe_for
from trimtab.arms.search.context_search import SEARCH_SPACES, rounds
from trimtab.arms.search.passage_search import choose_passages, gold_retrieved
from trimtab.arms.search.trials import ContextScores
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.records import Example, Hit, Message
from trimtab.base.task import load_task, parse_arm
from trimtab.data.row_store import are_stored
from trimtab.training.sft import SupervisedObjective

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Session:
    """200 questions in pairs, every fifth unanswerable, and a document for each city."""
    folder = tmp_path_factory.mktemp("contexts")
    (folder / "documents").mkdir()
    rows = rows_of(200, unknown=True)
    for row in rows:
        row["document"] = "" if row["answer"] == UNKNOWN else f"{row['answer'].lower()}.md"
    for city in {row["answer"] for row in rows} - {UNKNOWN}:
        (folder / "documents" / f"{city.lower()}.md").write_text(f"# Town\n{city} has a bridge.\n")
    task = write_task(
        folder,
        tiny_model_folder,
        ["rag", "lora+rag"],
        rows=rows,
        data=(
            'documents = ["documents/"]\ngroup = "pair"\n'
            'columns = { input = "question", output = "answer", passage = "document" }'
        ),
        base=f'embedding = "{tiny_embedding_folder}"',
    )
    return open_session(open_workspace(load_task(task)))


def shown(prompt_messages: tuple[Message, ...]) -> list[str]:
    """The questions of the worked examples in a prompt."""
    return [turn.content for turn in prompt_messages[:-1] if turn.role == "user"]


@pytest.mark.parametrize("kind", ["few-shot", "nearest-shots"])
@pytest.mark.parametrize("split", SPLITS)
def test_shots_come_from_other_training_rows_alone(session: Session, kind: str, split: str) -> None:
    splits = session.workspace.splits
    allowed = {example.input: example for example in splits["train"]}
    for prompt, example in zip(
        PromptBuilder(session, Context(shots=2, shot_kind=kind)).prompts(splits[split]), splits[split], strict=True
    ):
        shots = shown(prompt.messages)
        assert len(shots) == 2 or (kind == "few-shot" and split == "train")
        assert set(shots) <= set(allowed) - {example.input}
        if kind == "nearest-shots":
            assert all(allowed[shot].group != example.group for shot in shots)


def test_a_context_without_settings_is_the_instruction_alone(session: Session) -> None:
    assert Context().is_instruction_alone
    assert Context().chosen() == {}
    assert context_for(parse_arm("prompt", session.task)) == Context()


def test_nearest_shots_are_found_beyond_a_large_group_of_ones_own(session: Session) -> None:
    def row(number: int, group: str) -> Example:
        messages = (Message(role="user", content=f"bridge {number}"),)
        return Example(id=f"{group}{number}", messages=messages, references=(group,), group=group)

    pool = [*(row(number, "own") for number in range(30)), *(row(number, "other") for number in range(100, 103))]
    (shots,) = NearestShots(session, pool)([row(99, "own")], 3)
    assert [shot.references[0] for shot in shots] == ["other"] * 3


def test_fixed_shots_show_different_answers_and_do_not_depend_on_the_order_of_rows(session: Session) -> None:
    pool = session.workspace.splits["train"]
    shots = draw_fixed_shots(pool, 4)
    assert len({shot.references[0] for shot in shots}) == 4
    assert draw_fixed_shots(tuple(reversed(pool)), 4) == shots
    assert len(draw_fixed_shots(pool[:3], 8)) == 3
    assert draw_fixed_shots((), 4) == []


@pytest.mark.parametrize("kind", [None, "few-shot", "nearest-shots"])
@pytest.mark.parametrize("passages", [0, 2])
def test_prompts_composed_some_at_a_time_are_those_composed_at_once(
    session: Session, monkeypatch: pytest.MonkeyPatch, kind: str | None, passages: int
) -> None:
    train, context = (
        session.workspace.splits["train"],
        Context(passages=passages, shots=2 if kind else 0, shot_kind=kind),
    )
    at_once = list(PromptBuilder(session, context).stream_training_prompts(train, 0))
    assert [example for example, _, _ in at_once] == list(train)
    for module in ("contexts.BLOCK", "contexts.MOST_COMPARED", "retriever.MOST_CACHED"):
        monkeypatch.setattr(f"trimtab.arms.{module}", 7)
    session.retriever.forget_hits()
    builder, composed = PromptBuilder(session, context), []
    fit = builder._fit_to_context
    monkeypatch.setattr(builder, "_fit_to_context", lambda *parts: composed.append(parts[0].id) or fit(*parts))
    stream = builder.stream_training_prompts(train, 0)
    assert next(stream) == at_once[0]
    assert len(composed) <= 7
    assert list(stream) == at_once[1:]
    assert len(session.retriever._hits) <= 14
    assert list(builder.stream_training_prompts((), 0)) == []


def test_a_missing_passage_is_answered_by_unknown_also_where_only_later_rows_are(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.arms.contexts.BLOCK", 7)
    train = session.workspace.splits["train"]
    known = [row for row in train if row.references[0] != UNKNOWN]
    unknown = [row for row in train if row.references[0] == UNKNOWN]
    builder, mix = PromptBuilder(session, Context(passages=2)), PassageMix(gold_missing=1.0)
    answers = [answer for _, answer in builder.training_prompts([*known[:20], *unknown[:1]], 0, mix)]
    assert answers == [UNKNOWN] * 21
    assert UNKNOWN not in [answer for _, answer in builder.training_prompts(known[:20], 0, mix)]


def test_rows_in_files_are_encoded_as_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
) -> None:
    """Examples and encoded rows in files: the same fingerprint, shots, and rows to train on, canaries among them."""
    file = write_task(tmp_path, tiny_model_folder, ["lora"], rows=rows_of(200), data='group = "pair"\ncanaries = 3')
    task = load_task(file)
    found: list[object] = []
    for stored in (False, True):
        if stored:
            monkeypatch.setattr("trimtab.data.row_store.IN_MEMORY", 10)
            monkeypatch.setattr("trimtab.data.row_store.BLOCK", 7)
            monkeypatch.setattr("trimtab.training.encoded_rows.MOST_BYTES_HELD", 0)
        one = open_session(open_workspace(task))
        train = one.workspace.splits["train"]
        assert are_stored(train) == stored
        recipe = recipe_for(one, parse_arm("lora", task), 0)
        setup = StageSetup(session=one, plan=recipe, stage=recipe.stages[0], context=Context())
        objectives = build_supervised(setup)
        objective, dev, skipped = objectives.train, objectives.dev, objectives.skipped
        assert isinstance(objective, SupervisedObjective)
        assert isinstance(dev, SupervisedObjective)
        shots = [draw_fixed_shots(train, count) for count in (0, 4, 30)]
        found.append((list(objective.rows), list(dev.rows), skipped, shots, fingerprint_rows(one.workspace)))
        assert len(objective.rows) == len(train) + 3
    assert found[0] == found[1]


def test_what_does_not_fit_is_dropped_until_the_prompt_fits(session: Session) -> None:
    room = session.context_tokens - session.output_tokens
    for context in (
        Context(shots=30, shot_kind="few-shot"),
        Context(passages=9),
        Context(passages=9, shots=30, shot_kind="few-shot"),
    ):
        prompts = PromptBuilder(session, context).prompts(session.workspace.splits["test"][:4])
        for prompt in prompts:
            assert len(session.encoder.prompt(prompt.messages)) <= room
            assert len(shown(prompt.messages)) < 30
            assert [hit.rank for hit in prompt.hits] == list(range(1, len(prompt.hits) + 1))
        assert context.shots or all(prompt.hits for prompt in prompts)


def test_passages_asked_for_are_the_best_ones(session: Session) -> None:
    test = session.workspace.splits["test"]
    for prompt, found in zip(
        PromptBuilder(session, Context(passages=2)).prompts(test), session.retriever.hits(test), strict=True
    ):
        assert prompt.hits == found[:2]


def test_a_re_ranking_model_puts_the_passages_in_order_unless_dev_chose_otherwise(
    session: Session, tmp_path: Path
) -> None:
    named = session.task.base.model_copy(update={"reranker": str(save_cross_encoder(tmp_path / "cross"))})
    task = session.task.model_copy(update={"base": named})
    ranked = Session(replace(session.workspace, task=task))
    test = session.workspace.splits["test"]
    again, found = (PromptBuilder(ranked, Context(passages=3, rerank=rerank)).prompts(test) for rerank in (1, 0))
    assert [prompt.hits for prompt in found] == [hits[:3] for hits in session.retriever.hits(test)]
    assert [prompt.hits for prompt in again] != [prompt.hits for prompt in found]
    for prompt in again:
        scores = [hit.score for hit in prompt.hits]
        assert scores == sorted(scores, reverse=True)
    arm = parse_arm("rag", task)
    tried = [options(context_for(arm)) for options in rounds(ranked, arm, context_for(arm), SEARCH_SPACES["standard"])]
    assert [context.rerank for what, contexts in tried if what == "rerank" for context in contexts] == [1, 0]
    assert context_for(arm, Context(passages=3, rerank=0).chosen()).rerank == 0


def lookups(share: Callable[[Context], float]) -> ContextScores:
    """As if each context showed a right passage to a share of the rows."""

    def ask(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        return {row.id: float(place < share(context) * len(rows)) for place, row in enumerate(rows)}, 1.0

    return ContextScores(None, ask)


@pytest.mark.parametrize(
    ("one", "three", "five", "chosen"), [(0.5, 0.95, 0.96, 3), (0.94, 0.95, 0.95, 1), (0.5, 0.6, 0.9, 5)]
)
def test_a_trained_arm_is_shown_the_fewest_passages_that_find_nearly_as_much(
    session: Session, one: float, three: float, five: float, chosen: int
) -> None:
    arm, found = parse_arm("lora+rag", session.task), {1: one, 3: three, 5: five}
    scores = lookups(lambda context: found[context.passages] - 0.001 * (context.chunk_words == 60))
    context, effort = choose_passages(session, arm, scores, "standard", 1e9)
    assert context == Context(passages=chosen)
    assert effort is not None
    assert all(trial.dev_metric is None and trial.found is not None for trial in effort.trials)
    assert [trial.what["passages"] for trial in effort.trials if trial.kept] == [chosen]
    better = lookups(lambda context: found[context.passages] - 0.3 + 0.05 * (context.vector_weight == 0.75))
    assert choose_passages(session, arm, better, "standard", 1e9)[0] == Context(passages=chosen, vector_weight=0.75)
    hardly = lookups(lambda context: 0.1 * found[context.passages])  # a dozen rows say nothing
    assert choose_passages(session, arm, hardly, "standard", 1e9)[0] == context_for(arm)
    hurried = lookups(lambda context: found[context.passages])
    assert choose_passages(session, arm, hurried, "standard", 2.0)[0] == context_for(arm)  # no time for three of them
    assert choose_passages(session, arm, scores, "none", 0.0) == (context_for(arm), None)


def test_what_a_trained_arm_is_shown_is_chosen_by_looking_up_alone(session: Session) -> None:
    arm, base = parse_arm("lora+rag", session.task), session._base
    session._base = None  # nothing is to be answered
    try:
        scores = ContextScores(None, partial(gold_retrieved, session))
        _, effort = choose_passages(session, arm, scores, "standard", 1e9)
    finally:
        session._base = session._base or base
    assert effort is not None
    splits = session.workspace.splits
    rows = [row for part in ("train", "dev") for row in splits[part] if row.references[0] != UNKNOWN]
    trials = {(trial.what["passages"], trial.what.get("chunk_words")): trial for trial in effort.trials}
    alone = PromptBuilder(session, Context(passages=1)).prompts(rows)
    right = [
        any(hit.passage.document.endswith(row.passages[0]) for hit in prompt.hits)
        for row, prompt in zip(rows, alone, strict=True)
    ]
    assert trials[1, None].found == pytest.approx(sum(right) / len(rows))
    assert trials[1, None].rows == len(rows)


def test_training_shows_the_right_passage_and_sometimes_not(session: Session) -> None:
    train = session.workspace.splits["train"]
    pairs = PromptBuilder(session, Context(passages=2)).training_prompts(train, 0)
    answerable = missing = 0
    for (prompt, answer), example in zip(pairs, train, strict=True):
        held = {hit.passage.document for hit in prompt.hits}
        assert len({hit.passage.id for hit in prompt.hits}) == len(prompt.hits) == 2
        if example.references[0] == UNKNOWN:
            assert answer == UNKNOWN
            continue
        answerable += 1
        gold = example.passages[0]
        if any(document.endswith(gold) for document in held):
            assert answer == example.references[0]
        else:
            missing += 1
            assert answer == UNKNOWN  # these data know such answers
    assert 0 < missing < 3 * USUAL_MIX.gold_missing * answerable
    assert PromptBuilder(session, Context(passages=2)).training_prompts(train, 0) == pairs
    assert PromptBuilder(session, Context(passages=2)).training_prompts(train, 1) != pairs


@pytest.mark.parametrize("distractors", [0.0, 0.5])
def test_beside_the_right_passage_stands_the_share_of_others_that_was_chosen(
    session: Session, distractors: float
) -> None:
    train = session.workspace.splits["train"]
    builder = PromptBuilder(session, Context(passages=3))
    usual = builder.training_prompts(train, 0)
    fewer = builder.training_prompts(train, 0, PassageMix(distractors=distractors))
    beside = 0
    right = 0
    for (before, answer), (now, same), example in zip(usual, fewer, train, strict=True):
        assert answer == same
        named = [hit for hit in now.hits if example.passages and hit.passage.document.endswith(example.passages[0])]
        if answer == UNKNOWN:  # where no passage is right, or it is left out, all the others stay
            assert {hit.passage.id for hit in now.hits} == {hit.passage.id for hit in before.hits}
            continue
        assert named
        right += 1
        beside += len(now.hits) - 1
    assert beside == 0 if distractors == 0 else 0.5 * right < beside < 1.5 * right


def test_the_right_passage_does_not_always_stand_in_the_same_place(session: Session) -> None:
    train = session.workspace.splits["train"]
    places = set()
    for (prompt, _), example in zip(
        PromptBuilder(session, Context(passages=3)).training_prompts(train, 0), train, strict=True
    ):
        names = [hit.passage.document for hit in prompt.hits]
        places |= {place for place, name in enumerate(names) if example.passages and name.endswith(example.passages[0])}
    assert places == {0, 1, 2}


def test_only_questions_without_their_right_passage_are_put_right(session: Session) -> None:
    test = session.workspace.splits["test"]
    builder = PromptBuilder(session, Context(passages=1))

    def has_gold(example: Example, hits: tuple[Hit, ...]) -> bool:
        return any(hit.passage.document.endswith(name) for hit in hits for name in example.passages)

    missed = [
        example
        for example, prompt in zip(test, builder.prompts(test), strict=True)
        if example.passages and not has_gold(example, prompt.hits)
    ]
    assert 0 < len(missed) < len(test)
    put_right = builder.with_gold_passage(test)
    assert [example for example, _ in put_right] == missed
    assert all(len(prompt.hits) == 1 and has_gold(example, prompt.hits) for example, prompt in put_right)


def test_parts_of_a_context_stand_side_by_side(session: Session) -> None:
    test = session.workspace.splits["test"]
    alone = PromptBuilder(session, Context(passages=1)).prompts(test)
    both = PromptBuilder(session, Context(passages=1, shots=2, shot_kind="few-shot")).prompts(test)
    for one, two in zip(alone, both, strict=True):
        assert one.hits == two.hits
        assert one.messages[-1] == two.messages[-1]
        assert len(shown(two.messages)) == 2
        assert shown(one.messages) == []


def test_what_was_chosen_makes_the_same_context_again(session: Session) -> None:
    arm = parse_arm("rag+few-shot", session.task)
    context = Context(passages=5, shots=2, shot_kind="few-shot", draw=3, shot_passages=1, instruction="Say it.")
    assert context_for(arm, json.loads(json.dumps(context.chosen()))) == context
    assert context_for(arm) == Context(passages=3, shots=4, shot_kind="few-shot")
    system = PromptBuilder(session, context).prompts(session.workspace.splits["test"][:1])[0].messages[0]
    assert (system.role, system.content) == ("system", "Say it.")


def test_draws_differ_and_a_shot_may_bring_its_right_passage(session: Session) -> None:
    pool, test = session.workspace.splits["train"], session.workspace.splits["test"][:3]
    draws = {tuple(shot.id for shot in draw_fixed_shots(pool, 4, draw)) for draw in range(5)}
    assert len(draws) == 5
    plain = Context(passages=1, shots=4, shot_kind="few-shot")
    for one, two in zip(
        PromptBuilder(session, plain, fits=False).prompts(test),
        PromptBuilder(session, replace(plain, shot_passages=1), fits=False).prompts(test),
        strict=True,
    ):
        assert one.messages[-1] == two.messages[-1]
        turns = list(zip(shown(one.messages), shown(two.messages), strict=True))
        answers = [turn.content for turn in two.messages if turn.role == "assistant"]
        for (bare, under), answer in zip(turns, answers, strict=True):
            assert under.endswith(bare)
            if answer == UNKNOWN:
                assert under == bare
            else:
                assert f"{answer} has a bridge" in under


def test_the_same_question_has_the_same_passages_whatever_it_is_called(session: Session) -> None:
    first, second = session.workspace.splits["test"][:2]
    assert session.retriever.hits([first]) != session.retriever.hits([second])

    def as_asked(example: Example) -> Example:
        return Example(id="question", messages=example.messages, references=())

    assert session.retriever.hits([as_asked(first), as_asked(second)]) == session.retriever.hits([first, second])
