"""Instructions that dev selects from: variants of the task's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import quantiles

from trimtab.base.records import Example
from trimtab.base.task import Task

MOST_LISTED = 1500  # largest total length, in characters, of labels that an instruction lists
SHORT_WORDS = 6  # answers of up to so many words are requested without a surrounding sentence


def instruction_variants(
    task: Task, labels: Sequence[str], train: Sequence[Example], *, passages: bool
) -> tuple[str, ...]:
    """Return instructions other than the task's own; empty if every row brings one in a system turn.

    `passages`: True if documents are shown with the question.
    """
    if not train or all(row.messages[0].role == "system" for row in train):
        return ()
    own = task.task.instruction.strip()
    added = _of_labels(labels) if task.task.kind == "classify" else _of_answers(task, train, passages=passages)
    found = [f"{own} {words}".strip() for words in added]
    return tuple(text for text in dict.fromkeys(found) if text != own)


def _of_labels(labels: Sequence[str]) -> list[str]:
    """Return variants for a closed set: with or without the list of labels, with the form of the answer."""
    listed = ", ".join(labels)
    found = ["Answer with the label alone."]
    if len(listed) <= MOST_LISTED:
        found += [f"The labels are: {listed}.", f"Answer with exactly one of these labels: {listed}."]
    return [*found, "Which label fits the text best?"]


def _of_answers(task: Task, train: Sequence[Example], *, passages: bool) -> list[str]:
    """Return variants for text answers: short, of the answer's form, with the rule for abstaining."""
    words = sorted(len(row.references[0].split()) for row in train)
    most = math.ceil(quantiles(words, n=10)[-1]) if len(words) > 1 else words[0]
    found = [f"Answer in at most {most} word{'s' * (most > 1)}, as short as possible."]
    if most <= SHORT_WORDS:
        found.append("Write only the answer itself, without a sentence around it.")
    if passages:
        found.append("Copy the answer from the passages, word for word.")
    unknown = task.task.unknown.strip()
    asked_for = unknown.casefold() in task.task.instruction.casefold()
    abstains = any(row.references[0].strip().casefold() == unknown.casefold() for row in train)
    if task.task.kind == "answer" and abstains and not asked_for:
        found.append(f"If the answer is not known, write: {unknown}.")
    return found
