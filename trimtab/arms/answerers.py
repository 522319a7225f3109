"""An arm ready to answer: its weights on, its prompts built, one question or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab.answering.remote import RemoteModel
from trimtab.arms.contexts import Context, PromptBuilder
from trimtab.arms.session import Session
from trimtab.arms.weights import put_on
from trimtab.base.errors import InputError
from trimtab.base.records import Arm, Example, Generation, Prompt
from trimtab.base.task import Task
from trimtab.model.adapters import merged
from trimtab.training.linear import LinearModel, load_linear

Answerer = Callable[[Sequence[Prompt]], Sequence[Generation]]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """`many` answers prompts together; `alone` one prompt as a server would, what all prompts share read beforehand."""

    builder: PromptBuilder
    many: Answerer
    alone: Callable[[Prompt], Generation]


@contextmanager
def ready(session: Session, arm: Arm, context: Context, run: Path, sample: Sequence[Example] = ()) -> Iterator[Ready]:
    """Inside, the arm answers. Trained weights come from what `run` holds, so what is measured is what was saved.

    `sample` are questions whose prompts show what all prompts of this arm begin with.
    """
    if arm.weights in ("linear", "api"):
        builder = PromptBuilder(session, context)
        many = _linear(load_linear(run / "adapter"), session) if arm.weights == "linear" else _remote(session, arm)
        yield Ready(builder=builder, many=many, alone=lambda prompt: many([prompt])[0])
        return
    if arm.weights == "base":
        session.fresh_base(will_change=False)
    else:
        put_on(session, run)
    with merged(session.base.model):
        builder = PromptBuilder(session, context)
        yield Ready(builder=builder, many=session.answer, alone=session.answer_alone(builder.prompts(sample)))


def _linear(model: LinearModel, session: Session) -> Answerer:
    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        texts = [prompt.messages[-1].content for prompt in prompts]
        chances_NC = model.probabilities(texts, session.embedder.encode)
        return [
            Generation(
                id=prompt.id,
                text=model.labels[int(row.argmax())],
                probability=float(row.max()),
                probabilities={label: float(chance) for label, chance in zip(model.labels, row, strict=True)},
            )
            for prompt, row in zip(prompts, chances_NC, strict=True)
        ]

    return answer


def lacking_keys(task: Task) -> dict[str, str]:
    """The endpoint arms whose key is not set, each with what to do; nothing is sent."""
    lacking: dict[str, str] = {}
    for arm in task.arms:
        if arm.weights == "api":
            try:
                _endpoint(task, arm)
            except InputError as error:
                lacking[arm.name] = f"{error.problem}; {error.remedy}"
    return lacking


def _endpoint(task: Task, arm: Arm) -> RemoteModel:
    table = task.api[arm.name.removeprefix("api-")]
    return RemoteModel(table.url, table.model, table.key_env)


def _remote(session: Session, arm: Arm) -> Answerer:
    model = _endpoint(session.task, arm)
    labels = session.workspace.labels if session.task.task.kind == "classify" else ()
    return lambda prompts: model.generate(prompts, session.output_tokens, labels)
