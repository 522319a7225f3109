"""Instructions proposed by an endpoint of the task file: requested once in a study, saved in a file, and charged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.grammar import is_trained, method_of
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Message, Prompt
from trimtab.base.sanitize import visible
from trimtab.base.task import Task
from trimtab.data.draw import sample_rows
from trimtab.inference.remote import remote_model

MOST = 4  # instructions from one endpoint
SHOWN_ROWS, SHOWN_LETTERS, LISTED_LETTERS = (
    8,
    600,
    1500,
)  # shown training rows, letters of each, and letters of the labels
ANSWER_TOKENS = 600
_MARK = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*")


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
    """Ask each proposing endpoint for other instructions than the task's own, with some training rows and their
    answers.

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
            fee += (answer.prompt_tokens * price.input + answer.new_tokens * price.output) / 1e6
    return Proposals(texts=tuple(dict.fromkeys(texts)), fee=fee)


def read_proposals(text: str) -> tuple[str, ...]:
    """Return the instructions of an answer: one per line, without number, bullet or quotation marks; lines of one or
    two words are ignored.
    """
    lines = (_MARK.sub("", line).strip().strip("\"'“”`*").strip() for line in text.splitlines())
    found = [
        visible(line) for line in lines if len(line.split()) > 2 and len(line) <= LISTED_LETTERS and line[-1] != ":"
    ]
    return tuple(dict.fromkeys(found))[:MOST]


def _request(workspace: Workspace) -> str:
    """Return the prompt for an endpoint."""
    task, rows = workspace.task, sample_rows(workspace.splits["train"], SHOWN_ROWS, workspace.task.task.kind)
    shown = [f"Question: {row.input[:SHOWN_LETTERS]}\nAnswer: {row.references[0][:SHOWN_LETTERS]}" for row in rows]
    labels = ", ".join(workspace.labels)
    listed = f"Every answer is one of: {labels[:LISTED_LETTERS]}\n\n" if labels else ""
    own = task.task.instruction.strip()
    now = f"Its instruction is now:\n{own}\n\n" if own else ""
    return (
        f"A small language model answers questions. {now}{listed}Some questions with the answers that are right:\n\n"
        + "\n\n".join(shown)
        + f"\n\nWrite {MOST} other instructions under which it would answer as in these examples. "
        "Each stands on one line of its own. Write nothing else."
    )
