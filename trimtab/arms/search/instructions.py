"""Instructions that dev selects from: variants of the task's own, and those that an endpoint proposes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.grammar import is_trained, method_of
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Example, Message, Prompt
from trimtab.base.sanitize import visible
from trimtab.base.task import Task
from trimtab.data.draw import sample_rows
from trimtab.inference.remote import remote_model

MOST_LISTED = 1500  # largest total length, in characters, of labels that an instruction lists
SHORT_WORDS = 6  # answers of up to so many words are requested without a surrounding sentence
MOST_PROPOSED = 4  # instructions from one endpoint
SHOWN_ROWS, SHOWN_LETTERS = 8, 600  # training rows that an endpoint is shown, and letters of each
ANSWER_TOKENS = 600  # of an endpoint's answer
_MARK = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*")


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


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Proposed instructions, none twice, and the fee: in the task's currency, 0 for an endpoint without a price."""

    texts: tuple[str, ...] = ()
    fee: float = 0.0


def proposing_endpoints(task: Task, arms: Sequence[Arm]) -> list[str]:
    """Return the endpoints that propose instructions: those that the task file allows to, if an arm may try them."""
    prompted = any(method_of(arm).uses_base and not is_trained(arm) for arm in arms)
    searched = task.study.effort != "none" and bool(task.data.examples)
    return [name for name, table in task.api.items() if table.proposes] if prompted and searched else []


def propose(workspace: Workspace, arms: Sequence[Arm], kept: Path, progress: Progress) -> Proposals:
    """Ask each proposing endpoint for other instructions than the task's own, with some training rows.

    Answers are saved in the file `kept` and not requested again. If an endpoint fails, that is reported and none of
    its instructions are tried.
    """
    task, train = workspace.task, workspace.splits["train"]
    texts: list[str] = []
    fee = 0.0
    for name in proposing_endpoints(task, arms) if train else ():
        table = task.api[name]
        progress.emit("choose", note=f"asking api.{name} for instructions")
        prompt = Prompt(id=f"proposals-{name}", messages=(Message(role="user", content=_request(workspace)),))
        try:
            answer = remote_model(table, kept).generate([prompt], ANSWER_TOKENS)[0]
        except (InputError, RemoteError) as error:
            progress.emit("choose", note=f"no instructions from api.{name}: {error}", stays=True)
            continue
        texts += [text for text in read_proposals(answer.text) if text != task.task.instruction.strip()]
        price = table.price_per_million
        if price is not None:
            fee += price.fee(answer.prompt_tokens, answer.new_tokens)
    return Proposals(texts=tuple(dict.fromkeys(texts)), fee=fee)


def read_proposals(text: str) -> tuple[str, ...]:
    """Return the instructions of an answer, one per line of more than two words, without bullets and marks."""
    lines = (_MARK.sub("", line).strip().strip("\"'“”`*").strip() for line in text.splitlines())
    found = [visible(line) for line in lines if len(line.split()) > 2 and len(line) <= MOST_LISTED and line[-1] != ":"]
    return tuple(dict.fromkeys(found))[:MOST_PROPOSED]


def _request(workspace: Workspace) -> str:
    """Return the prompt for an endpoint."""
    task, rows = workspace.task, sample_rows(workspace.splits["train"], SHOWN_ROWS, workspace.task.task.kind)
    shown = [f"Question: {row.input[:SHOWN_LETTERS]}\nAnswer: {row.references[0][:SHOWN_LETTERS]}" for row in rows]
    labels = ", ".join(workspace.labels)
    listed = f"Every answer is one of: {labels[:MOST_LISTED]}\n\n" if labels else ""
    own = task.task.instruction.strip()
    now = f"Its instruction is now:\n{own}\n\n" if own else ""
    return (
        f"A small language model answers questions. {now}{listed}Some questions with the answers that are right:\n\n"
        + "\n\n".join(shown)
        + f"\n\nWrite {MOST_PROPOSED} other instructions under which it would answer as in these examples. "
        "Each stands on one line of its own. Write nothing else."
    )
