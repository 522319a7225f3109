"""Whether what was exported answers like the arm that was measured: the same questions, asked of the program that will read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.records import Calibration, Example, Generation, Prompt
from trimtab.base.results import Estimate
from trimtab.base.task import Task
from trimtab.export.readers import ExportReader, TransformersReader
from trimtab.inference.label_scoring import label_weighting
from trimtab.measurement.calibration import label_scores
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.statistics import compare, estimate

TIE = {"fp32": 0.01, "bf16": 0.25}
"""Nats between two tokens, or two labels, within which another order of adding up decides which is first."""
SHOWN = 3  # questions that differ, by name
Step = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Lost:
    """The mean score as measured less that of what was exported, on the same questions, with its 95% interval."""

    score: float
    low: float
    high: float
    measured: float
    exported: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What one consumer answered, beside the arm as measured.

    `same` answers are equal word for word; of the others `ties` part where both are as likely (TIE), and `differ` do not.
    `same_prompts`: questions that its own template and tokenizer turn into the same tokens. `claimed`: whether equal answers are
    promised, as the numbers are the same. `holds`: no loss beyond the margin is shown. `what` is compared: answers, labels or
    prompts. `lost` is None where a program scores answers, and for prompts; there `holds` asks that what is promised is kept.
    """

    consumer: str
    precision: str
    what: str
    questions: int
    same: int
    ties: int
    differ: int
    same_prompts: int
    agreement: Estimate
    claimed: bool
    holds: bool
    lost: Lost | None
    differing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        if self.differ == 0:
            tied = f", {self.ties} of them after a tie" if self.ties else ""
            return f"{self.consumer}: {self.what} like those measured in {self.questions} of {self.questions}{tied}"
        lost = ""
        if self.lost is not None:
            lost = f"; score lost {self.lost.score:.3f} [{self.lost.low:.3f}, {self.lost.high:.3f}]"
        return f"{self.consumer}: {self.differ} of {self.questions} {self.what} differ from those measured{lost}"


@dataclass(frozen=True, kw_only=True)
class AskedAgain:
    """What is asked of every consumer, and what the arm as measured answered."""

    task: Task
    examples: Sequence[Example]
    prompts: Sequence[Prompt]
    measured: Sequence[Generation]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How answers are read off a consumer: `ask` gives of a prompt's ids the answer and its `lead` over another answer, in nats."""

    what: str
    ask: Callable[[Sequence[int], str], tuple[str, float]]


def prove(
    session: Session, asked: AskedAgain, consumer: ExportReader, way: Way, *, claimed: bool, own_ids: bool, step: Step
) -> Proof:
    """Ask a consumer every question; `own_ids` hands it our tokens, where its tokenizer is known to be another reader's business."""
    texts, alike, ties, differing = [], 0, 0, []
    for number, (prompt, measured) in enumerate(zip(asked.prompts, asked.measured, strict=True), 1):
        ours = session.encoder.prompt(prompt.messages)
        theirs = consumer.prompt(session.encoder.turns(prompt.messages))
        alike += theirs == ours
        text, lead = way.ask(ours if own_ids else theirs, measured.text)
        if text != measured.text:
            tied = lead <= TIE[session.precision]
            ties += tied
            differing += [] if tied else [prompt.id]
        texts.append(text)
        step(number, len(asked.prompts))
    return _judged(asked, texts, consumer.name, session.precision, way.what, ties, differing, alike, claimed=claimed)


def by_text(session: Session, consumer: ExportReader) -> Way:
    """Greedy text."""

    def ask(ids: Sequence[int], measured: str) -> tuple[str, float]:
        written = consumer.generate(ids, session.output_tokens, tuple(session.encoder.stop_ids))
        return written.text, written.gap(session.encoder.answer(measured)) if written.text != measured else 0.0

    return Way(what="answers", ask=ask)


def by_labels(session: Session, consumer: ExportReader, calibration: Calibration | None) -> Way:
    """The label that scores best, weighed as the arm's are."""
    labels = session.workspace.labels
    ids_of = [session.encoder.answer(label) for label in labels]
    weighing = label_weighting(calibration or Calibration(), labels)
    offsets_L = np.asarray(weighing.offsets) if weighing.offsets else None

    def ask(ids: Sequence[int], measured: str) -> tuple[str, float]:
        sums_1L = np.asarray([consumer.label_log_probabilities(ids, ids_of)])
        scores_L = label_scores(sums_1L, list(map(len, ids_of)), per_token=weighing.per_token, offsets_L=offsets_L)[0]
        return _best(dict(zip(labels, scores_L.tolist(), strict=True)), measured)

    return Way(what="labels", ask=ask)


def by_head(consumer: TransformersReader) -> Way:
    """The label of the classification head."""
    return Way(what="labels", ask=lambda ids, measured: _best(consumer.class_logits(ids), measured))


def prove_again(session: Session, asked: AskedAgain, again: AskedAgain) -> tuple[Proof, Proof]:
    """Whether an arm that was opened again builds the same prompts, and from them gives the same answers to the letter."""
    pairs = list(zip(asked.examples, asked.prompts, again.prompts, strict=True))
    other = [example.id for example, one, two in pairs if one.messages != two.messages]
    alike = len(pairs) - len(other)
    prompts = Proof(
        consumer="trimtab",
        precision=session.precision,
        what="prompts",
        questions=len(pairs),
        same=alike,
        ties=0,
        differ=len(other),
        same_prompts=alike,
        agreement=estimate([float(one.messages == two.messages) for _, one, two in pairs], _groups(asked)),
        claimed=True,
        holds=True,  # what other prompts lose, the answers show
        lost=None,
        differing=tuple(other[:SHOWN]),
    )
    texts = [one.text for one in again.measured]
    differing = [
        example.id for example, one, text in zip(asked.examples, asked.measured, texts, strict=True) if one.text != text
    ]
    what = "labels" if asked.task.task.kind == "classify" else "answers"
    answers = _judged(asked, texts, "trimtab", session.precision, what, 0, differing, alike, claimed=True)
    return prompts, answers


def _best(scores: Mapping[str, float], measured: str) -> tuple[str, float]:
    best = max(scores, key=scores.__getitem__)
    return best, scores[best] - scores.get(measured, float("-inf"))


def _judged(
    asked: AskedAgain,
    texts: Sequence[str],
    consumer: str,
    precision: str,
    what: str,
    ties: int,
    differing: Sequence[str],
    alike: int,
    *,
    claimed: bool,
) -> Proof:
    equal = [float(text == one.text) for text, one in zip(texts, asked.measured, strict=True)]
    lost = _lost(asked, texts)
    kept = not (claimed and differing) if lost is None else lost.low <= asked.task.target.margin
    return Proof(
        consumer=consumer,
        precision=precision,
        what=what,
        questions=len(texts),
        same=int(sum(equal)),
        ties=ties,
        differ=len(differing),
        same_prompts=alike,
        agreement=estimate(equal, _groups(asked)),
        claimed=claimed,
        holds=kept,
        lost=lost,
        differing=tuple(differing[:SHOWN]),
    )


def _lost(asked: AskedAgain, texts: Sequence[str]) -> Lost | None:
    if asked.task.metric == "scorer":
        return None
    before = [score_text(one, made.text, asked.task) for one, made in zip(asked.examples, asked.measured, strict=True)]
    after = [score_text(one, text, asked.task) for one, text in zip(asked.examples, texts, strict=True)]
    found = compare(before, after, _groups(asked))
    return Lost(
        score=found.difference,
        low=found.low,
        high=found.high,
        measured=float(np.mean(before)),
        exported=float(np.mean(after)),
    )


def _groups(asked: AskedAgain) -> list[Any]:
    return [example.group for example in asked.examples]
