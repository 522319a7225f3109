"""Instructions that another model rewrites: from what it sees, through dev, to the report; and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import KEY, Server, serving
from study_tasks import CLASSIFY, LABELLED, arm_of, begin_with_time, events, folder_of, rows_of, write_task

from trimtab import check, study
from trimtab.arms.contexts import Context, context_for
from trimtab.arms.search.context_search import choose_context, plan_context_search
from trimtab.arms.search.reflection import (
    BATCH,
    LEAST_DEV,
    Practice,
    Reflector,
    copied_words,
    open_reflector,
    read_instruction,
)
from trimtab.arms.search.trials import ContextScores
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.config import TokenPrice
from trimtab.base.errors import ConsentError, InputError, RemoteError
from trimtab.base.progress import Progress
from trimtab.base.records import Answer, Example, Generation, Prompt
from trimtab.base.results import Reflection, StudyResult
from trimtab.base.task import load_task, parse_arm

GOOD, BAD = "Name the city that the text speaks of.", "Say anything at all, as long as it rhymes."


def a_task(folder: Path, model: Path, url: str = "", *, rows: int = 200, more: str = "") -> Path:
    price = '{ input = 1000, output = 2000, as_of = 2026-11-01, source = "test" }'
    endpoint = f"""
[api.big]
url = "{url}"
model = "tiny"
key_env = "TINY_KEY"
proposes = true
price_per_million = {price}
[cost]
machine_hour = {{ price = 0.4, as_of = 2026-11-01, source = "test" }}
"""
    data = f"{LABELLED}\nsplit = {{ dev = 0.4, test = 0.2, seed = 0 }}"
    folder.mkdir(exist_ok=True)
    return write_task(
        *(folder, model, ["prompt"]),
        rows=rows_of(rows),
        task=CLASSIFY,
        data=data,
        effort="standard",
        more=(endpoint if url else "") + more,
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Session:
    return open_session(open_workspace(load_task(a_task(tmp_path_factory.mktemp("own") / "task", tiny_model_folder))))


def searched(
    session: Session, replies: Sequence[str], value: Mapping[str | None, float], kept: Path | None = None
) -> tuple[Context, Reflection, list[str], list[str]]:
    """Search where each instruction has a share of right answers, a question takes a second, and the other model says
    `replies`: the context, the record, the notes, and what the other model was asked."""
    asked: list[str] = []
    notes: list[str] = []

    def right(context: Context, row: Example) -> float:
        share = value.get(context.instruction, value[None])
        return float(int(row.id.removeprefix("row")) % 10 < 10 * share)

    def generate(prompt: Prompt) -> Generation:
        asked.append(prompt.messages[0].content)
        if len(asked) > len(replies):
            raise RemoteError("has nothing more to say")
        return Generation(id="", text=replies[len(asked) - 1], prompt_tokens=100, new_tokens=10)

    def ask(context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
        return {row.id: right(context, row) for row in rows}, float(len(rows))

    def practise(context: Context, rows: Sequence[Example]) -> Sequence[Answer]:
        found = [SimpleNamespace(answer=f"said to {row.input}", score=right(context, row)) for row in rows]
        return cast(Sequence[Answer], found)

    price = TokenPrice(input=1000, output=2000, as_of="2026-11-01", source="test")  # type: ignore[arg-type]
    session.reflector = Reflector(
        name="big", generate=generate, call_seconds=lambda _: 0.0, price=price, kept=kept and kept / "replies.jsonl"
    )
    practice = Practice(kept and kept / "practice.jsonl", practise)
    scores = ContextScores(kept and kept / "search.jsonl", ask)
    arm = parse_arm("prompt", session.task)
    try:
        context, effort = choose_context(session, arm, scores, "standard", 1e9, practice=practice, tell=notes.append)
    finally:
        session.reflector = None
    assert effort is not None
    assert effort.reflection is not None
    return context, effort.reflection, notes, asked


def test_a_better_instruction_is_kept_and_its_price_is_told(session: Session) -> None:
    context, found, _, asked = searched(session, [GOOD, BAD], {None: 0.3, GOOD: 0.9, BAD: 0.1})
    assert context.instruction == GOOD
    assert (found.calls, found.refused, found.compared, found.kept) == (2, 0, 1, True)
    assert found.fee == pytest.approx(2 * (100 * 1000 + 10 * 2000) / 1e6)
    assert found.questions >= 3 * BATCH  # before and after the first, before the second
    splits = session.workspace.splits
    assert any(f"said to {row.input}" in asked[0] for row in splits["train"])
    assert not any(row.input in text for row in (*splits["dev"], *splits["test"]) for text in asked)


def test_the_former_instruction_stays_unless_dev_favours_another(session: Session) -> None:
    """What is better on training rows alone, or by as much as chance does, is not kept."""
    usual = searched(session, [], {None: 0.5})[0]
    context, found, _, _ = searched(session, [GOOD], {None: 0.5, GOOD: 0.5})
    assert (context, found.kept, found.compared) == (usual, False, 0)
    worse, found, _, _ = searched(session, [BAD], {None: 0.5, BAD: 0.2})
    assert (worse, found.kept) == (usual, False)


def test_an_instruction_that_repeats_a_row_is_refused_and_told(session: Session) -> None:
    for split in ("train", "dev"):
        row = session.workspace.splits[split][3]
        copying = f"The answer to “{row.input}” is {row.references[0]}."
        context, found, notes, _ = searched(session, [copying, GOOD], {None: 0.3, copying: 1.0, GOOD: 0.9})
        assert context.instruction == GOOD  # it would have scored less
        assert found.refused == 1
        assert any("is refused: it repeats a row of train or dev" in note for note in notes)
        assert notes[-1] == "big rewrites no further instruction: has nothing more to say"


def test_a_killed_search_asks_nothing_twice(session: Session, tmp_path: Path) -> None:
    value = {None: 0.3, GOOD: 0.9, BAD: 0.1}
    whole = searched(session, [GOOD, BAD], value, tmp_path)
    again = searched(session, [], value, tmp_path)
    assert again[:2] == whole[:2]
    assert len(again[3]) == 1  # the reply that failed is asked for again, no other


def test_the_plan_tells_calls_fee_and_at_most_as_much_time(session: Session) -> None:
    arm = parse_arm("prompt", session.task)
    without = plan_context_search(session, arm, "standard", 1.0)
    price = TokenPrice(input=1000, output=2000, as_of="2026-11-01", source="test")  # type: ignore[arg-type]
    session.reflector = Reflector(
        name="big", generate=lambda _: Generation(id="", text=""), price=price, call_seconds=lambda _: 5.0
    )
    try:
        trial = next(one for one in plan_context_search(session, arm, "standard", 1.0) if one not in without)
    finally:
        session.reflector = None
    assert (trial.what, trial.calls) == ("rewritings of the instruction by big", trial.count)
    assert trial.fee > 0
    texts = [f"Write the name of the city, as rule {number} says." for number in range(trial.calls)]
    better = {None: 0.2, **{text: 0.3 + 0.1 * number for number, text in enumerate(texts)}}
    _, found, _, _ = searched(session, texts, better)
    assert found.questions <= trial.seconds


@given(st.lists(st.sampled_from("abcdefgh"), min_size=8, max_size=30), st.integers(0, 22), st.integers(0, 12))
def test_a_run_of_words_counts_as_copied_from_its_length_on(words: list[str], start: int, size: int) -> None:
    part = words[start : start + size]
    text = " ".join(["x1", *part, "x2"])
    found = copied_words(text, iter([[" ".join(words)]]), 1)
    assert bool(found) == (len(part) >= 8)
    assert found in text


def test_common_phrases_and_the_tasks_own_words_are_not_copied() -> None:
    rows = [["What is the name of the city that this text speaks of? " + name] for name in "ABCDEFGHIJ"]
    assert not copied_words("Write what is the name of the city that this text speaks of.", iter(rows), 10)
    assert copied_words("Say: who lived in Bonn", iter([["Who lived in Bonn?"]]), 1) == "who lived in bonn"
    assert not copied_words("Say: who lived in Bonn", iter([["Who lived in Bonn?"]]), 1, ["Who lived in Bonn"])


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("I think:\n<instruction>\nName the city.\n</instruction> Good luck!", "Name the city."),
        ("  Name the city.\n", "Name the city."),
        ("<instruction></instruction>", ""),
        ("<instruction>Name \x1b[31mit</instruction>", "Name ␛[31mit"),
    ],
)
def test_a_reply_gives_one_instruction(reply: str, text: str) -> None:
    assert read_instruction(reply) == text


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TINY_KEY", KEY)
    with serving() as one:
        one.says = f"<instruction>{GOOD}</instruction>"
        yield one


def run(task: Path, server: Server, **more: Any) -> StudyResult:
    return study(task, allow=[f"TINY_KEY@{server.url}"], listeners=[], **more)


def test_a_study_asks_an_endpoint_pays_for_it_and_shows_what_was_tried(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path / "with", tiny_model_folder, server.url)
    row = json.loads((task.parent / "rows.jsonl").read_text().splitlines()[5])
    server.script = [f"<instruction>{row['question']} is {row['answer']}</instruction>"]
    begin_with_time(task, allow=[f"TINY_KEY@{server.url}"])  # or a busy machine would leave it out
    asked = run(task, server, resume="latest")
    effort, cost = arm_of(asked, "prompt").effort, arm_of(asked, "prompt").cost
    assert effort is not None
    assert effort.reflection is not None
    assert cost is not None
    assert effort.reflection.calls == len(server.bodies) >= 1
    assert effort.reflection.refused >= 1
    assert cost.up_front >= effort.reflection.fee > 0.1
    assert "Which city?" in server.bodies[0]["messages"][0]["content"]
    page = (folder_of(task, asked) / "report.html").read_text()
    assert "api.big" in page
    notes = [event.get("note", "") for event in events(folder_of(task, asked))]
    assert any("is refused: it repeats a row" in note for note in notes)
    again = run(task, server, resume="latest")
    assert arm_of(again, "prompt").effort == effort
    assert len(server.bodies) == effort.reflection.calls


def test_rows_are_sent_to_no_address_that_was_not_allowed(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    task = a_task(tmp_path / "asked", tiny_model_folder, server.url)
    with pytest.raises(ConsentError, match="to send questions and training rows to"):
        study(task, listeners=[])
    told = check(task, listeners=[])
    assert any("training rows" in remark.text for remark in told.remarks)
    assert [trial.calls for trial in told.forecasts[0].trials if trial.calls] == [6]
    assert not server.bodies


def test_rows_are_named_only_where_they_are_sent(server: Server, tmp_path: Path, tiny_model_folder: Path) -> None:
    """Without effort nothing is rewritten, so the task's own arms need no address."""
    task = a_task(tmp_path / "named", tiny_model_folder, server.url)
    task.write_text(
        task.read_text().replace('effort = "standard"', 'effort = "none"').replace('["prompt"]', '["api-big"]')
    )
    with pytest.raises(ConsentError, match="to send questions to"):
        study(task, listeners=[])


def test_with_few_dev_rows_nothing_is_rewritten_and_one_note_says_so(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    session = open_session(
        open_workspace(load_task(a_task(tmp_path / "few", tiny_model_folder, server.url, rows=LEAST_DEV)))
    )
    told: list[str] = []
    progress = Progress(listeners=[lambda event: told.append(event.get("note", ""))])
    assert open_reflector(session, progress) is None
    assert len(told) == 1
    assert "cannot tell which is better" in told[0]


def test_the_teacher_model_rewrites_without_an_endpoint(tmp_path: Path, tiny_model_folder: Path) -> None:
    more = f'\n[teacher]\nmodel = "{tiny_model_folder.parent / "other"}"\nproposes = true\n'
    task = load_task(a_task(tmp_path / "local", tiny_model_folder, more=more))
    own = replace_teacher(open_session(open_workspace(task)), tiny_model_folder)
    reflector = open_reflector(own, Progress(), tmp_path)
    assert reflector is not None
    text, seconds, fee = reflector.ask("Which city?")
    assert (reflector.name, fee) == ("the teacher", 0.0)
    assert reflector.ask("Which city?") == (text, seconds, fee)  # from the file
    reflector.release()


def replace_teacher(session: Session, model: Path) -> Session:
    """The session with a teacher that is there, although it is the base model."""
    task = session.task.model_copy(update={"teacher": session.task.teacher.model_copy(update={"model": str(model)})})
    session.workspace, session.task = replace(session.workspace, task=task), task
    return session


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('\n[teacher]\napi = "big"\nproposes = true\n', "api.big and teacher propose instructions"),
        ("\n[teacher]\nproposes = true\n", "proposes needs a teacher"),
    ],
)
def test_one_model_proposes(tmp_path: Path, more: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load_task(a_task(tmp_path / "two", Path("nowhere"), "http://127.0.0.1:1/v1", more=more))


def test_an_endpoint_that_only_decides_proposes_nothing(tmp_path: Path) -> None:
    task = a_task(tmp_path / "decides", Path("nowhere"), "http://127.0.0.1:1/v1")
    task.write_text(task.read_text().replace('model = "tiny"\nkey', 'api = "systemone"\nmodel = "tiny"\nkey'))
    with pytest.raises(InputError, match="proposes needs an endpoint that writes"):
        load_task(task)


def test_an_endpoint_that_fails_costs_the_study_nothing_but_its_instructions(
    server: Server, tmp_path: Path, tiny_model_folder: Path
) -> None:
    server.faults = ["broken"] * 9
    task = a_task(tmp_path / "failing", tiny_model_folder, server.url)
    begin_with_time(task, allow=[f"TINY_KEY@{server.url}"])
    result = run(task, server, resume="latest")
    assert arm_of(result, "prompt").status == "done"
    notes = [event.get("note", "") for event in events(folder_of(task, result))]
    assert any(note.startswith("api.big rewrites no further instruction: ") for note in notes)
    assert context_for(parse_arm("prompt", load_task(task))).instruction is None
