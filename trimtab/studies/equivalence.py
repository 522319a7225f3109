"""Equivalence check: an export is asked the test questions and must answer like the arm that was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.records import Calibration, Example, Generation, Prompt
from trimtab.base.results import Estimate
from trimtab.base.task import Task
from trimtab.exports.readers import ExportReader, TransformersReader
from trimtab.inference.label_scoring import label_weighting
from trimtab.measurement.calibration import label_scores
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.statistics import compare_paired, estimate

TIE = {"fp32": 0.01, "bf16": 0.25}
"""Nats between two tokens, or two labels, within which another order of adding up decides which is first."""
SHOWN = 3  # shown names of differing questions
Step = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ScoreLoss:
    """Mean score as measured less that of the export, on the same questions, with its 95% interval."""

    score: float
    low: float
    high: float
    measured: float
    exported: float


@dataclass(frozen=True, kw_only=True)
class EquivalenceCheck:
    """The answers of one program that reads the export, compared with the arm as measured.

    `same`: answers equal word for word. `ties`: unequal ones where both are equally likely (TIE). `differ`: the
    other unequal ones. `same_prompts`: questions that its own template and tokenizer turn into the same tokens.
    `claimed`: True if equal answers are promised, as the numbers are the same. `holds`: no loss beyond the margin is
    shown. `what`: the compared kind: answers, labels or prompts. `lost`: None if a program scores answers, and for
    prompts; `holds` then requires that what is promised is kept.
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
    lost: ScoreLoss | None
    differing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Return the result in one line."""
        if self.differ == 0:
            tied = f", {self.ties} of them after a tie" if self.ties else ""
            return f"{self.consumer}: {self.what} like those measured in {self.questions} of {self.questions}{tied}"
        lost = ""
        if self.lost is not None:
            lost = f"; score lost {self.lost.score:.3f} [{self.lost.low:.3f}, {self.lost.high:.3f}]"
        return f"{self.consumer}: {self.differ} of {self.questions} {self.what} differ from those measured{lost}"


@dataclass(frozen=True, kw_only=True)
class ReferenceAnswers:
    """The questions for every reading program, and the answers of the arm as measured."""

    task: Task
    examples: Sequence[Example]
    prompts: Sequence[Prompt]
    measured: Sequence[Generation]


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A way of reading answers from a program. `ask`: returns, for a prompt's ids, the answer and its `lead` over
    another answer, in nats.
    """

    what: str
    ask: Callable[[Sequence[int], str], tuple[str, float]]


def check_equivalence(
    session: Session,
    reference: ReferenceAnswers,
    consumer: ExportReader,
    way: Readout,
    *,
    claimed: bool,
    own_ids: bool,
    step: Step,
) -> EquivalenceCheck:
    """Ask a reading program every question. `own_ids`: pass Trimtab's token ids, if the tokenizer is known to be
    another reader's job.
    """
    texts, alike, ties, differing = [], 0, 0, []
    for number, (prompt, measured) in enumerate(zip(reference.prompts, reference.measured, strict=True), 1):
        ours = session.encoder.prompt(prompt.messages)
        theirs = consumer.prompt(session.encoder.turns(prompt.messages))
        alike += theirs == ours
        text, lead = way.ask(ours if own_ids else theirs, measured.text)
        if text != measured.text:
            tied = lead <= TIE[session.precision]
            ties += tied
            differing += [] if tied else [prompt.id]
        texts.append(text)
        step(number, len(reference.prompts))
    return _result(
        reference, texts, consumer.name, session.precision, way.what, ties, differing, alike, claimed=claimed
    )


def by_text(session: Session, consumer: ExportReader) -> Readout:
    """Return a readout of greedy text."""

    def ask(ids: Sequence[int], measured: str) -> tuple[str, float]:
        written = consumer.generate(ids, session.output_tokens, tuple(session.encoder.stop_ids))
        return written.text, written.gap(session.encoder.answer(measured)) if written.text != measured else 0.0

    return Readout(what="answers", ask=ask)


def by_labels(session: Session, consumer: ExportReader, calibration: Calibration | None) -> Readout:
    """Return a readout of the best-scoring label, calibrated like the arm's."""
    labels = session.workspace.labels
    ids_of = [session.encoder.answer(label) for label in labels]
    weighing = label_weighting(calibration or Calibration(), labels)
    offsets_L = np.asarray(weighing.offsets) if weighing.offsets else None

    def ask(ids: Sequence[int], measured: str) -> tuple[str, float]:
        sums_1L = np.asarray([consumer.label_log_probabilities(ids, ids_of)])
        scores_L = label_scores(sums_1L, list(map(len, ids_of)), per_token=weighing.per_token, offsets_L=offsets_L)[0]
        return _best(dict(zip(labels, scores_L.tolist(), strict=True)), measured)

    return Readout(what="labels", ask=ask)


def by_head(consumer: TransformersReader) -> Readout:
    """Return a readout of the classification head's label."""
    return Readout(what="labels", ask=lambda ids, measured: _best(consumer.class_logits(ids), measured))


def check_bundle(
    session: Session, reference: ReferenceAnswers, again: ReferenceAnswers
) -> tuple[EquivalenceCheck, EquivalenceCheck]:
    """Check that an arm reloaded from its bundle builds the same prompts, and gives the same answers to the letter."""
    pairs = list(zip(reference.examples, reference.prompts, again.prompts, strict=True))
    other = [example.id for example, one, two in pairs if one.messages != two.messages]
    alike = len(pairs) - len(other)
    prompts = EquivalenceCheck(
        consumer="trimtab",
        precision=session.precision,
        what="prompts",
        questions=len(pairs),
        same=alike,
        ties=0,
        differ=len(other),
        same_prompts=alike,
        agreement=estimate([float(one.messages == two.messages) for _, one, two in pairs], _groups(reference)),
        claimed=True,
        holds=True,  # the loss from other prompts shows in the answers
        lost=None,
        differing=tuple(other[:SHOWN]),
    )
    texts = [one.text for one in again.measured]
    differing = [
        example.id
        for example, one, text in zip(reference.examples, reference.measured, texts, strict=True)
        if one.text != text
    ]
    what = "labels" if reference.task.task.kind == "classify" else "answers"
    answers = _result(reference, texts, "trimtab", session.precision, what, 0, differing, alike, claimed=True)
    return prompts, answers


def _best(scores: Mapping[str, float], measured: str) -> tuple[str, float]:
    best = max(scores, key=scores.__getitem__)
    return best, scores[best] - scores.get(measured, float("-inf"))


def _result(
    reference: ReferenceAnswers,
    texts: Sequence[str],
    consumer: str,
    precision: str,
    what: str,
    ties: int,
    differing: Sequence[str],
    alike: int,
    *,
    claimed: bool,
) -> EquivalenceCheck:
    equal = [float(text == one.text) for text, one in zip(texts, reference.measured, strict=True)]
    lost = _score_loss(reference, texts)
    kept = not (claimed and differing) if lost is None else lost.low <= reference.task.target.margin
    return EquivalenceCheck(
        consumer=consumer,
        precision=precision,
        what=what,
        questions=len(texts),
        same=int(sum(equal)),
        ties=ties,
        differ=len(differing),
        same_prompts=alike,
        agreement=estimate(equal, _groups(reference)),
        claimed=claimed,
        holds=kept,
        lost=lost,
        differing=tuple(differing[:SHOWN]),
    )


def _score_loss(reference: ReferenceAnswers, texts: Sequence[str]) -> ScoreLoss | None:
    if reference.task.metric == "scorer":
        return None
    before = [
        score_text(one, made.text, reference.task)
        for one, made in zip(reference.examples, reference.measured, strict=True)
    ]
    after = [score_text(one, text, reference.task) for one, text in zip(reference.examples, texts, strict=True)]
    found = compare_paired(before, after, _groups(reference))
    return ScoreLoss(
        score=found.difference,
        low=found.low,
        high=found.high,
        measured=float(np.mean(before)),
        exported=float(np.mean(after)),
    )


def _groups(reference: ReferenceAnswers) -> list[Any]:
    return [example.group for example in reference.examples]
