"""Arm `linear`: fits a linear classifier in a session, and answers with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.arms.fingerprint import weights_digest
from trimtab.arms.session import Session
from trimtab.base.config import SLOT
from trimtab.base.errors import InputError, MissingError
from trimtab.base.records import Generation, Prompt
from trimtab.base.results import Stopped
from trimtab.base.task import Task
from trimtab.measurement.evaluate import score_all
from trimtab.measurement.metrics import aggregate
from trimtab.training.linear import HIDDEN, PENALTIES, Featurizer, LinearTrial, load_linear, train_linear

Answerer = Callable[[Sequence[Prompt]], Sequence[Generation]]
TIMED_ROWS = 8  # rows read with the base model, or embedded, to predict the time of all
EMBEDDING_SHARE = 0.25  # most of the budget for embedding all rows; words and letters take next to nothing
MOST_COLUMNS = 4  # of an input that are read apart: each has a vocabulary and an embedding of its own


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """Every trial of a fit, the selected one, and the reason for stopping."""

    trials: tuple[LinearTrial, ...]
    kept: LinearTrial
    stopped: Stopped


def fit_linear(session: Session, folder: Path, *, search_seconds: float = 0.0, like: Path | None = None) -> LinearFit:
    """Fit the arm on the training rows, select on dev, and save it in `folder`.

    Embeddings are among the features if they fit the budget (`fits_budget`), hidden states of the base model if it is
    available and reads all rows within `search_seconds`, each as timed on a few rows. `like`: the folder of a fit whose
    choice is reused, so that only the rows differ.
    """
    train, dev = session.workspace.training_rows("linear"), session.workspace.splits["dev"]
    texts, dev_texts = [row.input for row in train], [row.input for row in dev]
    labels, dev_labels = [row.references[0] for row in train], [row.references[0] for row in dev]
    former = load_linear(like) if like else None
    takes = hidden_state_seconds(session) if search_seconds > 0 and former is None else None
    within = takes is not None and takes <= search_seconds
    embeds = former is not None or fits_budget(session, embedding_seconds(session))
    hidden = session.mean_hidden_states if within or (former and former.choice.features == HIDDEN) else None

    def dev_score(given: Sequence[str], right: Sequence[str]) -> float:
        scores = score_all(dev, given, session.task, None)
        return aggregate(session.task.metric, given, [[label] for label in right], scores)

    model, trials = train_linear(
        *(texts, labels, dev_texts, dev_labels),
        session.retriever.embed if embeds else None,
        hidden,
        template=input_template(session.task),
        score=dev_score,
        fixed_choice=former.choice if former else None,
    )
    model.save(folder, made_by=weights_digest(session.base_folder) if model.choice.features == HIDDEN else "")
    kept = next(trial for trial in reversed(trials) if trial.choice == model.choice)
    stopped: Stopped = "no trial was better"
    if dev and model.choice.penalty in (PENALTIES[0], PENALTIES[-1]):
        stopped = "edge of the ladder"
    is_cut = not embeds or (takes is not None and not within)
    return LinearFit(trials=trials, kept=kept, stopped="budget" if is_cut else stopped)


def fits_budget(session: Session, each: float) -> bool:
    """True if embedding every row, each text in `each` seconds, fits the study's budget beside other arms."""
    budget, workspace = session.task.budget_seconds, session.workspace
    rows = len(workspace.training_rows("linear")) + len(workspace.splits["dev"]) + len(workspace.splits["test"])
    return budget is None or each * rows <= EMBEDDING_SHARE * budget


def embedding_seconds(session: Session) -> float:
    """Return the seconds of embedding a text, from a few rows."""
    sample = [row.input for row in session.workspace.subset("train", TIMED_ROWS)]
    session.retriever.embedder.encode(sample[:1])  # the first, cold pass is not counted
    began = time.perf_counter()
    session.retriever.embedder.encode(sample)
    return (time.perf_counter() - began) / len(sample)


def input_template(task: Task) -> tuple[str, ...]:
    """Return the texts before, between and after the columns of an input, as the task file names them; empty for one
    column, and for more than MOST_COLUMNS."""
    columns = task.data.columns.get("input", ())
    if isinstance(columns, str):
        template = tuple(SLOT.split(columns)[::2])
    else:
        template = ("", *["\n\n"] * (len(columns) - 1), "")
    return template if 2 < len(template) <= MOST_COLUMNS + 1 else ()


def hidden_state_seconds(session: Session) -> float | None:
    """Return the seconds of reading train and dev with the base model, from a few rows; None without a base model."""
    try:
        session.fresh_base()
    except MissingError:  # the arm does not require it
        return None
    workspace = session.workspace
    rows = [row.input for row in (*workspace.training_rows("linear"), *workspace.splits["dev"])]
    sample = [row.input for row in session.workspace.subset("train", TIMED_ROWS)]
    session.mean_hidden_states(sample[:1])  # the first, cold pass is not counted
    began = time.perf_counter()
    session.mean_hidden_states(sample)
    each = (time.perf_counter() - began) / max(1, sum(map(len, sample)))
    return each * sum(map(len, rows))


def linear_answerer(session: Session, folder: Path) -> Answerer:
    """Return an answerer with the classifier in `folder`. Raises InputError for one of another base model."""
    model = load_linear(folder)
    turn: Featurizer = session.retriever.embedder.encode
    if model.choice.features == HIDDEN:
        if model.made_by != weights_digest(session.base_folder):
            raise InputError(
                "was fitted on hidden states of another base model",
                "train it again, or restore the earlier model",
                file=folder,
            )
        session.fresh_base()
        turn = session.mean_hidden_states

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
