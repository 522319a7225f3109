"""Equivalence check: an export is asked the test questions and must answer like the arm that was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.common_prefix import common_prefix_length
from trimtab.base.metrics import find_metric
from trimtab.base.records import Calibration, Example, Generation, Prompt
from trimtab.base.results import Estimate
from trimtab.base.task import Task
from trimtab.exports.readers import ExportReader, ReadAnswer, TransformersReader
from trimtab.inference.label_scoring import label_weighting
from trimtab.measurement.calibration import label_scores
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.statistics import compare_paired, estimate

TIE = {"fp32": 0.01, "bf16": 0.25}
"""Nats between two tokens, or two labels, within which another order of adding up decides which is first."""
SECONDS = 300.0  # for the questions that one program is asked; what is left then is not asked, and told
MEASURED = "measured"  # the reference of most checks: the arm as measured
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
class Parting:
    """Where unequal answers part. `token`: the number of the first token that differs, on average. `lead`: by how many
    nats the asked program preferred its own token (or label) there, as a median; both None if unknown.
    """

    token: float | None = None
    lead: float | None = None

    def words(self, what: str) -> str:
        """Return both in words; empty if unknown."""
        if self.lead is None:
            return ""
        if what == "labels":
            return f", its own label preferred by {self.lead:.2f} nats (median)"
        return f", first at token {self.token:.1f} (mean), its own preferred by {self.lead:.2f} nats (median)"


@dataclass(frozen=True, kw_only=True)
class EquivalenceCheck:
    """The answers of one program that reads the export, compared with the arm as measured or with another program.

    `reference`: what they are compared with. `precision`: of the arm as measured. `what`: the compared kind: answers,
    labels or prompts. `left`: questions that were not asked, as the time was up. `same`: equal answers, word for word
    or, of two programs, token for token. `ties`: unequal ones where both are equally likely (TIE). `differ`: the other
    unequal ones. `same_prompts`: questions that its own template and tokenizer turn into the same tokens. `claimed`:
    True if equal answers are promised, as the numbers are the same. `lost`: None if a program scores answers, for
    prompts and for two programs. `failed`: a loss beyond the margin is shown; without `lost`, what is claimed is not
    kept.
    """

    consumer: str
    reference: str = MEASURED
    precision: str
    what: str
    questions: int
    left: int = 0
    same: int
    ties: int
    differ: int
    parting: Parting = Parting()
    same_prompts: int
    agreement: Estimate
    claimed: bool
    failed: bool
    lost: ScoreLoss | None
    differing: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Return the result in one line."""
        low, high = 100 * self.agreement.low, 100 * self.agreement.high
        parts = [
            f"{self.consumer}: {self.same} of {self.questions} {self.what} are the same as {self.reference}, "
            f"95% interval {low:.0f}% to {high:.0f}%"
        ]
        unequal = [f"{self.ties} differ by a tie"] * bool(self.ties) + [f"{self.differ} differ"] * bool(self.differ)
        if unequal:
            parts.append(" and ".join(unequal) + self.parting.words(self.what))
        if self.lost is not None and unequal:
            parts.append(f"score lost {self.lost.score:.3f} [{self.lost.low:.3f}, {self.lost.high:.3f}]")
        if self.same_prompts < self.questions:
            missed = self.questions - self.same_prompts
            parts.append(f"its own tokenizer and chat template read {missed} of the questions as other tokens")
        if self.left:
            parts.append(f"{self.left} more were not asked, as the time was up")
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class ReferenceAnswers:
    """The questions for every reading program, and the answers of the arm as measured."""

    task: Task
    examples: Sequence[Example]
    prompts: Sequence[Prompt]
    measured: Sequence[Generation]

    def first(self, count: int) -> ReferenceAnswers:
        """Return the first questions alone."""
        return replace(
            self, examples=self.examples[:count], prompts=self.prompts[:count], measured=self.measured[:count]
        )


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A way of reading answers from a program. `ask`: returns the answer to a prompt's ids. `read`: returns an answer
    of the arm as measured in the same form.
    """

    what: str
    ask: Callable[[Sequence[int]], ReadAnswer]
    read: Callable[[str], ReadAnswer]


@dataclass(frozen=True, kw_only=True)
class ConsumerAnswers:
    """The answers of a reading program to the first questions. `measured`: those of the arm, in the same form."""

    consumer: str
    what: str
    answers: Sequence[ReadAnswer]
    measured: Sequence[ReadAnswer]
    same_prompts: int


def ask_consumer(
    session: Session,
    reference: ReferenceAnswers,
    consumer: ExportReader,
    way: Readout,
    *,
    own_ids: bool,
    step: Step,
    seconds: float = SECONDS,
) -> ConsumerAnswers:
    """Ask a reading program the questions, the first one in any case and no further one after `seconds`.

    `own_ids`: pass Trimtab's token ids, so that its tokenizer and template are compared apart from its arithmetic.
    """
    answers: list[ReadAnswer] = []
    alike, end = 0, time.monotonic() + seconds
    for prompt in reference.prompts:
        ours = session.encoder.prompt(prompt.messages)
        theirs = consumer.prompt(session.encoder.turns(prompt.messages))
        alike += theirs == ours
        answers.append(way.ask(ours if own_ids else theirs))
        step(len(answers), len(reference.prompts))
        if time.monotonic() >= end:
            break
    return ConsumerAnswers(
        consumer=consumer.name,
        what=way.what,
        answers=answers,
        measured=[way.read(answer.text) for answer in reference.measured[: len(answers)]],
        same_prompts=alike,
    )


def compare_with_measured(
    reference: ReferenceAnswers, asked: ConsumerAnswers, precision: str, *, claimed: bool
) -> EquivalenceCheck:
    """Compare a program's answers with those of the arm as measured, by their text."""
    first = reference.first(len(asked.answers))
    pairs = list(zip(asked.answers, asked.measured, strict=True))
    unequal = [number for number, (answer, measured) in enumerate(pairs) if answer.text != measured.text]
    tied = {number for number in unequal if pairs[number][0].gap(pairs[number][1].ids) <= TIE[precision]}
    check = _scored_check(
        *(first, [answer.text for answer in asked.answers], asked.consumer, precision, asked.what),
        tied=tied,
        same_prompts=asked.same_prompts,
        claimed=claimed,
    )
    return replace(
        check, left=len(reference.prompts) - len(pairs), parting=_parting([pairs[number] for number in unequal])
    )


def compare_programs(
    reference: ReferenceAnswers, asked: ConsumerAnswers, other: ConsumerAnswers, precision: str
) -> EquivalenceCheck:
    """Compare the answers of two programs that read the same file, by their tokens."""
    pairs = list(zip(asked.answers, other.answers, strict=False))  # one of them may have had time for more
    first = reference.first(len(pairs))
    equal = [answer.ids == theirs.ids for answer, theirs in pairs]
    check = _check(first, equal, asked.consumer, precision, asked.what, same_prompts=len(pairs), claimed=False)
    return replace(
        check,
        reference=f"those of {other.consumer} from the same file",
        left=len(reference.prompts) - len(pairs),
        parting=_parting([pair for pair, is_equal in zip(pairs, equal, strict=True) if not is_equal]),
    )


def by_text(session: Session, consumer: ExportReader) -> Readout:
    """Return a readout of greedy text."""
    stops = tuple(session.encoder.stop_ids)
    return Readout(
        what="answers",
        ask=lambda ids: consumer.generate(ids, session.output_tokens, stops),
        read=lambda text: ReadAnswer(text=text, ids=session.encoder.answer(text)),
    )


def by_labels(session: Session, consumer: ExportReader, calibration: Calibration | None) -> Readout:
    """Return a readout of the best-scoring label, calibrated like the arm's."""
    labels = session.workspace.labels
    ids_of = [session.encoder.answer(label) for label in labels]
    weighing = label_weighting(calibration or Calibration(), labels)
    offsets_L = np.asarray(weighing.offsets) if weighing.offsets else None

    def score(ids: Sequence[int]) -> Mapping[str, float]:
        sums_1L = np.asarray([consumer.label_log_probabilities(ids, ids_of)])
        scores_L = label_scores(sums_1L, list(map(len, ids_of)), per_token=weighing.per_token, offsets_L=offsets_L)[0]
        return dict(zip(labels, scores_L.tolist(), strict=True))

    return _by_scores(labels, score)


def by_head(consumer: TransformersReader) -> Readout:
    """Return a readout of the classification head's label."""
    return _by_scores(list(consumer.model.config.id2label.values()), consumer.class_logits)


def _by_scores(labels: Sequence[str], score: Callable[[Sequence[int]], Mapping[str, float]]) -> Readout:
    def ask(ids: Sequence[int]) -> ReadAnswer:
        scores = score(ids)
        best = max(scores, key=scores.__getitem__)
        numbered = {labels.index(label): value for label, value in scores.items()}
        return ReadAnswer(text=best, ids=(labels.index(best),), log_probabilities=(numbered,))

    return Readout(what="labels", ask=ask, read=lambda text: ReadAnswer(text=text, ids=(labels.index(text),)))


def check_bundle(
    session: Session, reference: ReferenceAnswers, again: ReferenceAnswers
) -> tuple[EquivalenceCheck, EquivalenceCheck]:
    """Check that an arm reloaded from its bundle builds the same prompts, and gives the same answers to the letter."""
    pairs = zip(reference.prompts, again.prompts, strict=True)
    equal = [prompt.messages == other.messages for prompt, other in pairs]
    alike = sum(equal)
    # The loss from other prompts shows in the answers.
    prompts = _check(reference, equal, "trimtab", session.precision, "prompts", same_prompts=alike, claimed=True)
    what = "labels" if reference.task.task.kind == "classify" else "answers"
    texts = [answer.text for answer in again.measured]
    return prompts, _scored_check(
        reference, texts, "trimtab", session.precision, what, same_prompts=alike, claimed=True
    )


def _parting(pairs: Sequence[tuple[ReadAnswer, ReadAnswer]]) -> Parting:
    """Return where these unequal answers part."""
    leads = [lead for answer, other in pairs if isfinite(lead := answer.gap(other.ids))]
    if not leads:
        return Parting()
    tokens = [common_prefix_length(answer.ids, other.ids) + 1 for answer, other in pairs]
    return Parting(token=float(np.mean(tokens)), lead=float(np.median(leads)))


def _check(
    reference: ReferenceAnswers,
    equal: Sequence[bool],
    consumer: str,
    precision: str,
    what: str,
    *,
    tied: Collection[int] = (),
    same_prompts: int,
    claimed: bool,
) -> EquivalenceCheck:
    """Return the check of a program, neither failed nor scored. `equal`: by question; `tied`: the numbers of unequal
    ones that are a tie.
    """
    differing = [
        prompt.id
        for number, (prompt, is_equal) in enumerate(zip(reference.prompts, equal, strict=True))
        if not is_equal and number not in tied
    ]
    return EquivalenceCheck(
        consumer=consumer,
        precision=precision,
        what=what,
        questions=len(equal),
        same=sum(equal),
        ties=len(tied),
        differ=len(differing),
        same_prompts=same_prompts,
        agreement=estimate(list(map(float, equal)), [example.group for example in reference.examples]),
        claimed=claimed,
        failed=False,
        lost=None,
        differing=tuple(differing[:SHOWN]),
    )


def _scored_check(
    reference: ReferenceAnswers,
    texts: Sequence[str],
    consumer: str,
    precision: str,
    what: str,
    *,
    tied: Collection[int] = (),
    same_prompts: int,
    claimed: bool,
) -> EquivalenceCheck:
    """Return the check of a program's answers by their text, with the loss in score."""
    equal = [text == answer.text for text, answer in zip(texts, reference.measured, strict=True)]
    check = _check(
        *(reference, equal, consumer, precision, what), tied=tied, same_prompts=same_prompts, claimed=claimed
    )
    lost = _score_loss(reference, texts)
    failed = claimed and bool(check.differ) if lost is None else lost.low > reference.task.target.margin
    return replace(check, failed=failed, lost=lost)


def _score_loss(reference: ReferenceAnswers, texts: Sequence[str]) -> ScoreLoss | None:
    if find_metric(reference.task.metric).score is None:
        return None
    before = [
        score_text(one, made.text, reference.task)
        for one, made in zip(reference.examples, reference.measured, strict=True)
    ]
    after = [score_text(one, text, reference.task) for one, text in zip(reference.examples, texts, strict=True)]
    found = compare_paired(before, after, [example.group for example in reference.examples])
    return ScoreLoss(
        score=found.difference,
        low=found.low,
        high=found.high,
        measured=float(np.mean(before)),
        exported=float(np.mean(after)),
    )
