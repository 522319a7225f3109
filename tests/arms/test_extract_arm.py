"""The `extract` arm from a task to its answers, without any language model: sentences with their source, or that
there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from study_tasks import write_task

import trimtab
from trimtab.arms.contexts import USUAL_THRESHOLD, Context, PromptBuilder, context_for
from trimtab.arms.extract import LEAST_ROWS, choose_threshold, extract_answerer
from trimtab.arms.online import OnlineQuestion, reply_from
from trimtab.arms.session import Session
from trimtab.arms.workspace import open_workspace
from trimtab.base.errors import InputError
from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Example, Message
from trimtab.base.task import load_task, parse_arm
from trimtab.retrieval.extract import SURE
from trimtab.studies.ask import AskResult


def expected(asked: AskResult, threshold: float) -> str:
    """The first sentence if its probability reaches the threshold."""
    first = asked.hits[0]
    return first.passage.text if first.score >= threshold else "unknown"


PLACES = ("Aalen", "Bonn", "Celle", "Dachau", "Emden", "Fulda", "Gera", "Hamm", "Ilmenau", "Jena", "Kiel", "Lemgo")
TASK = 'kind = "answer"\nunknown = "unknown"\noutput_tokens = 6'
NOBODY = "smollm2-360m-of-nobody"  # no base model is at hand, and none is asked for


def question(place: str, what: str) -> str:
    return f"How many {what} has the {place} office?"


@pytest.fixture
def task_file(tmp_path: Path, tiny_embedding_folder: Path) -> Path:
    documents = tmp_path / "documents"
    documents.mkdir()
    rows = []
    for number, place in enumerate(PLACES):
        said = " ".join(
            f"The {place} office has {number + more} {what}." for more, what in ((20, "desks"), (50, "lamps"))
        )
        (documents / f"{place.lower()}.md").write_text(f"# {place}\n\n{said} It opens at noon.\n")
        rows += [{"question": question(place, "desks"), "answer": str(number + 20), "passage": f"{place.lower()}.md"}]
        rows += [{"question": question(place, "lamps"), "answer": str(number + 50), "passage": f"{place.lower()}.md"}]
        rows += [{"question": f"Who painted the ceiling above stair {number * 37 % 101}?", "answer": "unknown"}]
    return write_task(
        tmp_path,
        NOBODY,
        ["extract"],
        rows=rows,
        task=TASK,
        data='documents = ["documents/"]\ncolumns = { input = "question", output = "answer", passage = "passage" }\n'
        'leakage = "report"',
        base=f'embedding = "{tiny_embedding_folder}"',
    )


def test_a_study_of_it_alone_needs_no_base_model_and_cites_its_sentences(task_file: Path) -> None:
    result = trimtab.study(task=task_file, listeners=())
    arm = result.arms[0]
    assert (arm.status, arm.stored_bytes > 0) == ("done", True)
    assert arm.chosen["chunk_words"] == SENTENCE
    assert arm.effort
    assert sum(trial.kept for trial in arm.effort.trials) == 1
    kept = next(trial for trial in arm.effort.trials if trial.kept)
    assert arm.chosen["threshold"] == kept.what["threshold"]
    assert kept.dev_metric == max(trial.dev_metric for trial in arm.effort.trials)
    asked = trimtab.ask(question("Bonn", "desks"), task=task_file, arm="extract", listeners=())
    assert asked.answer == expected(asked, arm.chosen["threshold"])
    assert [hit.rank for hit in asked.hits] == [1, 2, 3]


def test_ask_takes_it_where_no_study_was_made(task_file: Path) -> None:
    (task_file.parent / "rows.jsonl").unlink()
    plain = task_file.read_text().replace('examples = ["rows.jsonl"]\n', "").replace('arms = ["extract"]\n', "")
    task_file.write_text(plain)
    asked = trimtab.ask(question("Celle", "lamps"), task=task_file, listeners=())
    assert asked.arm == "extract"
    assert asked.answer == expected(asked, USUAL_THRESHOLD)


def test_what_is_said_to_hold_the_answer_holds_what_it_introduces(task_file: Path) -> None:
    listed = (
        "# Zwickau\n\nThe Zwickau office has the following number of sofas:\n\n- 31 upstairs. They are red.\n- 2 below."
    )
    (task_file.parent / "documents" / "zwickau.md").write_text(listed)
    asked = trimtab.ask(question("Zwickau", "sofas"), task=task_file, arm="extract", listeners=())
    assert asked.sentence == asked.answer == listed.partition("\n\n")[2]
    assert asked.found
    assert asked.probability == asked.hits[0].score
    assert asked.is_sure == (asked.probability >= SURE)


def test_an_answer_is_cited_for_its_own_sentence_and_abstaining_for_none(task_file: Path) -> None:
    task = load_task(task_file)
    session = Session(open_workspace(task))
    turns = (Message(role="user", content=question("Celle", "lamps")),)
    example = Example(id="q", messages=turns, references=())
    (prompt,) = PromptBuilder(session, context_for(parse_arm("extract", task))).prompts([example])
    asked = OnlineQuestion(id="q", messages=turns, cache_salt="a test")
    for threshold, answers in ((0.0, True), (1.0, False)):
        (generation,) = extract_answerer("unknown", threshold)([prompt])
        reply = reply_from(session, asked, prompt, generation)
        assert reply.text == (prompt.hits[0].passage.text if answers else "unknown")
        assert (1 in reply.cited, reply.abstained) == (answers, not answers)


def test_it_is_an_arm_wherever_there_are_documents_and_answers_are_text(task_file: Path) -> None:
    task = load_task(task_file)
    plain = task.model_copy(update={"study": task.study.model_copy(update={"arms": ()})})
    assert "extract" in [arm.name for arm in plain.arms]
    closed = plain.model_copy(update={"task": plain.task.model_copy(update={"kind": "classify"})})
    assert "extract" not in [arm.name for arm in closed.arms]
    with pytest.raises(InputError, match="a sentence, which is no label"):
        parse_arm("extract", closed)
    bare = plain.model_copy(update={"data": plain.data.model_copy(update={"documents": ()})})
    with pytest.raises(InputError, match="needs documents"):
        parse_arm("extract", bare)


def test_a_few_rows_leave_the_threshold(task_file: Path) -> None:
    rows = task_file.parent / "rows.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[: LEAST_ROWS - 5]))
    task = load_task(task_file)
    session = Session(open_workspace(task))
    context = context_for(parse_arm("extract", task))
    assert choose_threshold(session, context, None) == (context, None)
    assert context.threshold == USUAL_THRESHOLD


def test_its_choice_survives_a_round_trip(task_file: Path) -> None:
    arm = parse_arm("extract", load_task(task_file))
    chosen = json.loads(json.dumps(context_for(arm, {"threshold": 0.3}).chosen()))
    assert context_for(arm, chosen).threshold == 0.3
    assert Context().threshold is None
