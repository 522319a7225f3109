"""The `linear` arm in a session: what it may look at, and its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trimtab.arms.identity import weights_digest
from trimtab.arms.session import Session
from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Generation, Prompt
from trimtab.training.linear import HIDDEN, LinearTrial, Turn, load_linear, train_linear

Answerer = Callable[[Sequence[Prompt]], Sequence[Generation]]
TIMED_ROWS = 8  # read with the base to foretell all


def fit_linear(session: Session, folder: Path, *, search_seconds: float = 0.0) -> tuple[LinearTrial, ...]:
    """Fit the arm on the training rows, choose on dev, save it in `folder`; every trial.

    Hidden states of the base are among the choices where the base is there and reads all rows within `search_seconds`, as timed on
    a few of them.
    """
    train, dev = session.workspace.splits["train"], session.workspace.splits["dev"]
    texts, dev_texts = [row.input for row in train], [row.input for row in dev]
    labels, dev_labels = [row.references[0] for row in train], [row.references[0] for row in dev]
    hidden = _hidden_within(session, search_seconds)
    model, trials = train_linear(texts, labels, dev_texts, dev_labels, session.embedder.encode, hidden)
    model.save(folder, made_by=weights_digest(session.base_folder) if model.features == HIDDEN else "")
    return trials


def _hidden_within(session: Session, seconds: float) -> Turn | None:
    """What makes hidden states, None where there is no base, or reading train and dev with it would take longer than `seconds`."""
    if seconds <= 0:
        return None
    try:
        session.fresh_base()
    except MissingError:  # the arm does not ask for it
        return None
    rows = [row.input for name in ("train", "dev") for row in session.workspace.splits[name]]
    sample = [row.input for row in session.part("train", TIMED_ROWS)]
    session.hidden(sample[:1])  # the first, cold one is not counted
    began = time.perf_counter()
    session.hidden(sample)
    each = (time.perf_counter() - began) / max(1, sum(map(len, sample)))
    return session.hidden if each * sum(map(len, rows)) <= seconds else None


def linear_answerer(session: Session, folder: Path) -> Answerer:
    """Answers by the classifier that lies in `folder`. Raises InputError where it looks at hidden states of another base model."""
    model = load_linear(folder)
    turn: Turn = session.embedder.encode
    if model.features == HIDDEN:
        if model.made_by != weights_digest(session.base_folder):
            raise InputError(
                "was fitted on hidden states of another base model",
                "train it again, or put the former model back",
                file=folder,
            )
        session.fresh_base()
        turn = session.hidden

    def answer(prompts: Sequence[Prompt]) -> list[Generation]:
        chances_NC = model.probabilities([prompt.messages[-1].content for prompt in prompts], turn)
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
