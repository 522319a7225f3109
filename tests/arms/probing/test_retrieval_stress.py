"""Probe `retrieval`: arms that do not stand each change of the passages are found, and a careful reader is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from probed import subject_of
from study_tasks import CITIES, THINGS, UNKNOWN, write_task

from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.probing.probe import adjusted, run_probes
from trimtab.arms.probing.retrieval_stress import CHANGES, MISSING, another_answer
from trimtab.arms.session import Session, open_session
from trimtab.arms.workspace import open_workspace
from trimtab.base.records import Prompt
from trimtab.base.results import Probe
from trimtab.base.task import load_task, parse_arm

Reader = Callable[[str, list[str]], str]


@pytest.fixture
def session(tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path) -> Session:
    """Forty buses, each with a document that says from which gate it leaves."""
    (tmp_path / "documents").mkdir()
    rows = []
    for number in range(40):
        gate, bus = 1000 + 7 * number, THINGS[number // 10] + CITIES[number % 10].lower()
        text = f"# Bus {bus}\n\nThe bus {bus} leaves from gate {gate}.\n"
        (tmp_path / "documents" / f"{number}.md").write_text(text)
        rows.append({"id": f"row{number}", "question": f"Which gate has bus {bus}?", "answer": str(gate)})
    base = f'embedding = "{tiny_embedding_folder}"'
    task = write_task(tmp_path, tiny_model_folder, ["rag"], rows=rows, data='documents = ["documents/"]', base=base)
    return open_session(open_workspace(load_task(task)), "fp32")


READS_THREE = Context(passages=3, vector_weight=0.0)


def probed(session: Session, reads: Reader, context: Context = READS_THREE) -> dict[str, Probe]:
    """What the probe finds of an arm that answers by `reads(bus, passages)`, by change."""
    rows = [row for split in session.workspace.splits.values() for row in split]

    def says(prompt: Prompt) -> str:
        (bus,) = re.findall(r"Which gate has bus (\w+)", prompt.messages[-1].content)[-1:]
        return reads(bus, [hit.passage.text for hit in prompt.hits])

    builder: Any = PromptBuilder(session, context, fits=False)
    subject = subject_of(session.task, rows, says, builder=builder)
    found = run_probes(replace(subject, session=session), ["retrieval"])
    return {one.change: one for one in adjusted(found, 0.02)}


def of_bus(bus: str, passages: list[str]) -> list[str]:
    """The gates of a bus, in the order of the passages; an outdated one counts for nothing."""
    own = [text for text in passages if f"bus {bus} leaves" in text and "Old version" not in text]
    return [gate for text in own for gate in re.findall(r"gate (\d+)", text)]


def careful(bus: str, passages: list[str]) -> str:
    return next(iter(of_bus(bus, passages)), UNKNOWN)


def test_a_careful_reader_stands_every_change(session: Session) -> None:
    found = probed(session, careful)
    assert set(found) == set(CHANGES)
    assert {one.found for one in found.values()} == {False}
    assert {(one.before, one.after) for one in found.values()} == {(1, 1)}


def guesses(bus: str, passages: list[str]) -> str:
    return next(iter(of_bus(bus, passages)), "12")


def reads_three(bus: str, passages: list[str]) -> str:
    return careful(bus, passages) if len(passages) <= 3 else UNKNOWN


def reads_the_first(bus: str, passages: list[str]) -> str:
    return careful(bus, passages[:1])


def believes_the_last(bus: str, passages: list[str]) -> str:
    return (of_bus(bus, passages) or [UNKNOWN])[-1]


def believes_old_versions(bus: str, passages: list[str]) -> str:
    old = [text for text in passages if "Old version" in text]
    return careful(bus, [text.replace("Old version", "") for text in old] or passages)


def obeys(bus: str, passages: list[str]) -> str:
    ordered = re.search(r"answer only: (\S+)\.", " ".join(passages))
    return ordered[1] if ordered else careful(bus, passages)


def test_the_arm_extract_is_asked_without_the_right_sentence(session: Session) -> None:
    """It has its sentences apart from the messages."""
    context = context_for(parse_arm("extract", session.task))
    bold = probed(session, lambda _, passages: re.findall(r"gate (\d+)", passages[0])[0], context)
    assert set(bold) == {MISSING}
    assert bold[MISSING].found
    assert (bold[MISSING].before, bold[MISSING].after) == (1.0, 0.0)
    assert not probed(session, careful, context)[MISSING].found


@pytest.mark.parametrize(
    ("reads", "change"),
    [
        (guesses, MISSING),
        (reads_three, "with distractors"),
        (reads_the_first, "with the passages in another order"),
        (believes_the_last, "with a passage that contradicts"),
        (believes_old_versions, "with an outdated passage beside the current one"),
        (obeys, "with an instruction hidden in a passage"),
    ],
)
def test_each_planted_failure_is_found_by_its_change(session: Session, reads: Reader, change: str) -> None:
    found = probed(session, reads)[change]
    assert found.found, found
    assert found.before > 0.5
    assert found.examples


@pytest.mark.parametrize(
    ("reference", "other"),
    [("1007", "1006"), ("07:30", "06:30"), ("the 3rd of 40", "the 3rd of 39"), ("Bonn", "Celle"), ("a red bus", None)],
)
def test_another_answer_is_of_the_same_kind(reference: str, other: str | None) -> None:
    assert another_answer(reference, ["Celle", "12 km"]) == other
