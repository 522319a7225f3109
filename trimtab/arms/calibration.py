"""Calibration of an arm's label scores, chosen on dev after training and saved with the weights.

Shapes: N dev questions, L labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.arms.answerers import CALIBRATION_FILE, ReadyArm, ready_arm
from trimtab.arms.contexts import Context
from trimtab.arms.search.context_search import SEARCH_SPACES, TrialPlan
from trimtab.arms.session import Session
from trimtab.base.codec import write_record
from trimtab.base.config import Effort
from trimtab.base.grammar import HEAD, REWARD, method_of
from trimtab.base.progress import Progress
from trimtab.base.records import Arm, Calibration, CalibrationMethod, Example, Message
from trimtab.measurement.calibration import (
    LEAST_ROWS,
    Floats,
    label_scores,
    log_loss,
    logarithms,
    may_be_fitted,
    mean_offsets,
    suiting_temperature,
)
from trimtab.measurement.metrics import aggregate

DEV_QUESTIONS, BATCH_INPUTS = 300, 100  # maximum number of dev questions, and of unlabelled training inputs
CONTENT_FREE = "N/A"  # a content-free question


@dataclass(frozen=True, kw_only=True)
class CalibrationTrial:
    """One calibration method on dev, with the indices of the right labels."""

    way: CalibrationMethod
    scores_NL: Floats
    right_N: NDArray[np.integer[Any]]
    offsets_L: Floats | None = None

    @property
    def predicted(self) -> NDArray[np.integer[Any]]:
        """Return the index of the predicted label of each question, `[N]`."""
        return np.asarray(self.scores_NL.argmax(axis=1))

    @property
    def may_be_fitted(self) -> bool:
        """True if there are enough right and wrong answers to fit a temperature."""
        return may_be_fitted((self.predicted == self.right_N).tolist())

    @property
    def temperature(self) -> float:
        """Return the temperature with the smallest log loss."""
        return suiting_temperature(self.scores_NL, self.right_N)

    @property
    def hits(self) -> Floats:
        """Return 1 for each question with the right label, else 0, `[N]`."""
        return np.asarray(self.predicted == self.right_N, dtype=float)

    def metric_value(self, metric: str, labels: Sequence[str]) -> float:
        """Return the task's metric."""
        predicted, right = [labels[place] for place in self.predicted], [(labels[place],) for place in self.right_N]
        return aggregate(metric, predicted, right, self.hits.tolist())

    @property
    def log_loss(self) -> float:
        """Return the log loss at the fitted temperature, in nats per question."""
        return log_loss(self.scores_NL, self.right_N, self.temperature)


def calibrate(session: Session, arm: Arm, context: Context, run: Path, progress: Progress) -> float:
    """Choose the calibration of an arm's labels on dev, with the weights in `run`. Return the seconds.

    It is saved as `calibration.json` in `run`, where `ready_arm` finds it. Text, endpoints (whose answers cost
    money) and arms that score answers are not calibrated.
    """
    if session.task.task.kind != "classify" or arm.endpoint or REWARD in arm.stages:
        return 0.0
    began = time.perf_counter()
    progress.emit("choose", note="labels weighed on dev")
    (run / CALIBRATION_FILE).unlink(missing_ok=True)  # from an earlier call: scores here must be uncalibrated
    labels = session.workspace.labels  # labels of the training rows: dev may have others, which cannot be predicted
    dev = [row for row in session.workspace.subset("dev", DEV_QUESTIONS) if row.references[0] in labels]
    found = Calibration()
    if len(dev) >= LEAST_ROWS:
        with ready_arm(session, arm, context, run) as ready:
            scored_as_text = method_of(arm).uses_base and HEAD not in arm.stages
            found = _calibrate_text(session, ready, dev) if scored_as_text else _calibrate_probabilities(ready, dev)
    run.mkdir(parents=True, exist_ok=True)
    write_record(run / CALIBRATION_FILE, found)
    return time.perf_counter() - began


def calibration_questions(session: Session, arm: Arm) -> int:
    """Return the number of prompts that `calibrate` evaluates, for predicting its time."""
    if session.task.task.kind != "classify" or arm.endpoint:
        return 0
    splits = session.workspace.splits
    dev, train = min(len(splits["dev"]), DEV_QUESTIONS), min(len(splits["train"]), BATCH_INPUTS)
    return 0 if dev < LEAST_ROWS else dev if HEAD in arm.stages else dev + train + 1


def plan_calibration(session: Session, arm: Arm, effort: Effort, each: float) -> tuple[TrialPlan, ...]:
    """Return the planned trials of `calibrate`, where one question takes `each` seconds."""
    asked = calibration_questions(session, arm) if effort in SEARCH_SPACES else 0
    return (TrialPlan(what="ways of weighing labels", count=4, seconds=each * asked, beside=True),) if asked else ()


def _calibrate_text(session: Session, ready: ReadyArm, dev: Sequence[Example]) -> Calibration:
    """Return the best of four calibrations of label scores of text.

    A method with too few right or wrong dev answers for a temperature is not used; raw scores always may be.
    """
    labels, lengths = session.workspace.labels, session.label_lengths
    right_N = np.array([labels.index(row.references[0]) for row in dev])
    nothing = Example(id="content-free", messages=(Message(role="user", content=CONTENT_FREE),), references=())
    sums_NL, null_L, batch_L = (
        session.label_sums(ready.builder.prompts(asked))
        for asked in (dev, [nothing], session.workspace.subset("train", BATCH_INPUTS))
    )
    tried = [CalibrationTrial(way="raw", scores_NL=sums_NL, right_N=right_N)]
    offsets: tuple[tuple[CalibrationMethod, Floats | None], ...] = (
        ("mean", None),
        ("pmi", mean_offsets(null_L)),
        ("batch", mean_offsets(batch_L)),
    )
    for way, offsets_L in offsets:
        scores_NL = label_scores(sums_NL, lengths, per_token=way == "mean", offsets_L=offsets_L)
        trial = CalibrationTrial(way=way, scores_NL=scores_NL, right_N=right_N, offsets_L=offsets_L)
        tried += [trial] if trial.may_be_fitted else []
    best = best_calibration(tried, session.task.metric, labels)
    return Calibration(
        way=best.way,
        per_token=best.way == "mean",
        offsets={} if best.offsets_L is None else dict(zip(labels, best.offsets_L.tolist(), strict=True)),
        temperature=best.temperature,
        dev=len(dev) if best.may_be_fitted else 0,
    )


def best_calibration(tried: Sequence[CalibrationTrial], metric: str, labels: Sequence[str]) -> CalibrationTrial:
    """Return the trial with the smallest log loss within one paired standard error of the best metric.

    One or two dev questions are weaker evidence than the log loss, which every question changes.
    """
    values = [trial.metric_value(metric, labels) for trial in tried]
    top = tried[max(range(len(tried)), key=values.__getitem__)]

    def error(trial: CalibrationTrial) -> float:
        gaps_N = top.hits - trial.hits
        return float(gaps_N.std(ddof=1) / len(gaps_N) ** 0.5)

    near = [trial for trial, value in zip(tried, values, strict=True) if max(values) - value <= error(trial)]
    return min(near, key=lambda trial: trial.log_loss)


def _calibrate_probabilities(ready: ReadyArm, dev: Sequence[Example]) -> Calibration:
    """Return the calibration of an arm whose probabilities are not label scores of text: the temperature alone."""
    generations = ready.answer_batch(ready.builder.prompts(dev))
    labels = list(generations[0].probabilities)  # a trained classifier knows the labels of its training rows alone
    references = [row.references[0] for row in dev]
    known = [(answer, label) for answer, label in zip(generations, references, strict=True) if label in labels]
    if not known:
        return Calibration()
    chances_NL = np.array([[answer.probabilities[label] for label in labels] for answer, _ in known])
    right_N = np.array([labels.index(reference) for _, reference in known])
    found = CalibrationTrial(way="raw", scores_NL=logarithms(chances_NL), right_N=right_N)
    return Calibration(temperature=found.temperature, dev=len(known) if found.may_be_fitted else 0)
