"""Instructions that an endpoint of the task file proposes: asked once in a study, kept in a file, and paid for."""

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

MOST = 4  # instructions of one endpoint
SHOWN_ROWS, SHOWN_LETTERS, LISTED_LETTERS = 8, 600, 1500  # of training rows, of each, and of the labels
ANSWER_TOKENS = 600
_MARK = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])\s*")


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Instructions, none twice, and what asking for them cost: in the task's currency, 0 where the endpoint has no price."""

    texts: tuple[str, ...] = ()
    fee: float = 0.0


def proposing(task: Task, arms: Sequence[Arm]) -> list[str]:
    """The endpoints that are asked for instructions: those that the task file lets propose, where an arm may try them."""
    prompted = any(method_of(arm).uses_base and not is_trained(arm) for arm in arms)
    searched = task.study.effort != "none" and bool(task.data.examples)
    return [name for name, table in task.api.items() if table.proposes] if prompted and searched else []


def propose(workspace: Workspace, arms: Sequence[Arm], kept: Path, progress: Progress) -> Proposals:
    """Ask every endpoint that may propose for other instructions than the task's own, shown some training rows with their answers.

    What was answered stands in the file `kept` and is not asked again. An endpoint that cannot be asked is told of, and none of
    its instructions are tried.
    """
    task, train = workspace.task, workspace.splits["train"]
    texts: list[str] = []
    fee = 0.0
    for name in proposing(task, arms) if train else ():
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
    """The instructions of an answer: a line each, without its number, bullet or quotation marks; lines of a word or two are none."""
    lines = (_MARK.sub("", line).strip().strip("\"'“”`*").strip() for line in text.splitlines())
    found = [
        visible(line) for line in lines if len(line.split()) > 2 and len(line) <= LISTED_LETTERS and line[-1] != ":"
    ]
    return tuple(dict.fromkeys(found))[:MOST]


def _request(workspace: Workspace) -> str:
    """What an endpoint is asked."""
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
