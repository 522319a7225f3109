"""An arm whose answers a test decides, ready to be probed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trimtab.arms.answerers import ReadyArm
from trimtab.arms.probing.subject import Subject
from trimtab.base.records import Example, Generation, Message, Prompt
from trimtab.base.task import Task, load_task, parse_arm
from trimtab.measurement.evaluate import evaluate_prompts

TASK = """[task]
name = "probed"
instruction = "Answer."
kind = "answer"
metric = "exact_match"
output_tokens = 6
[data]
examples = ["rows.jsonl"]
[base]
model = "nowhere"
[study]
arms = ["prompt"]
"""


class Plain:
    """Builds prompts of the question alone."""

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        return [Prompt(id=row.id, messages=row.messages) for row in examples]


PLAIN = Plain()


def question(number: int, text: str, answer: str, **more: Any) -> Example:
    return Example(id=f"row{number}", messages=(Message(role="user", content=text),), references=(answer,), **more)


def probed_task(folder: Path, more: str = "") -> Task:
    (folder / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    (folder / "trimtab.toml").write_text(TASK + more)
    return load_task(folder / "trimtab.toml")


def subject_of(
    task: Task,
    rows: Sequence[Example],
    says: Callable[[Prompt], str],
    *,
    builder: Any = PLAIN,
    tell: Callable[..., None] = lambda *_, **__: None,
) -> Subject:
    """Return the arm that answers `says(prompt)`, after its study answered `rows`."""

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        return [
            Generation(id=one.id, text=says(one), prompt_tokens=1, new_tokens=1, seconds=0.0, finished=True)
            for one in prompts
        ]

    session: Any = SimpleNamespace(task=task)
    answers = evaluate_prompts(rows, builder.prompts(rows), answer, task, split="test", seed=0, scorer=None)
    return Subject(
        session=session,
        arm=parse_arm("prompt", task),
        ready=ReadyArm(builder=builder, answer_batch=answer, answer_one=lambda prompt: answer([prompt])[0]),
        rows=rows,
        answers={one.item_id: one for one in answers},
        scorer=None,
        untrained=(),
        tell=tell,
    )
