"""`drift`: compares questions, answers, quality and documents with those of when the version in production came
there, and recommends what to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import stats

from trimtab.arms.store import find_saved, read_result, study_of
from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import write_atomic
from trimtab.base.metrics import find_metric
from trimtab.base.task import TASK_FILE, Task, as_task, parse_arm
from trimtab.decision.staleness import training_due
from trimtab.measurement.format_check import format_checker
from trimtab.measurement.resampling import Array, Indices
from trimtab.measurement.units import block_length, splits, unit_codes
from trimtab.model.catalog import resolve
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.embed import Embedder
from trimtab.serving.traffic_store import ServedAnswer, TrafficStore, traffic_of
from trimtab.studies.consent import require_consent
from trimtab.upkeep.changed_documents import affected_questions, ask_again, compare_documents, version_documents
from trimtab.upkeep.config import upkeep_of
from trimtab.upkeep.drift_report import (
    AffectedQuestion,
    ChangedDocument,
    DriftAction,
    DriftExample,
    DriftReport,
    DriftWindow,
    QualityPoint,
    QualityWatch,
    Signal,
    SignalChange,
    UserJudgement,
)
from trimtab.upkeep.drift_tests import (
    PERMUTATIONS,
    Statistic,
    Vectors,
    classifier_accuracy,
    classifier_margin,
    distribution_gap,
    drift_test,
    label_mix,
    mean_discrepancy,
    typical,
)
from trimtab.upkeep.labels import TRAFFIC, contradict, labelled
from trimtab.upkeep.production import FEWEST
from trimtab.upkeep.registry import PRODUCTION, Registry, registry
from trimtab.upkeep.sequential import LEAST_BATCHES, RiskBatch, independent_batches, joined_batches, risk_bounds
from trimtab.upkeep.versions import Version

REFERENCE = 3  # windows that the reference grows to; one alone finds less (docs/log.md, 2026-11-30)
DELTA = 0.05  # probability that the quality is ever said to have fallen where it has not
EXAMPLES, SHOWN = 5, 20  # questions that show a change, and those that a document touched
JUDGED = 50  # judgements of users that later ones are held to
HALF_WIDTH = 0.1  # of the interval that the labels which are asked for give
INPUTS: tuple[Signal, ...] = ("questions", "classifier")
RETRIEVAL: tuple[Signal, ...] = ("similarity", "support")


def drift(
    *,
    task: str | Path | Task = TASK_FILE,
    after: int = 0,
    ask: bool = False,
    page: str | Path | None = None,
    store: str | None = None,
    address: str | None = None,
    artifacts: str | None = None,
    judgements: Sequence[UserJudgement] = (),
    allow: Sequence[str] = (),
) -> DriftReport:
    """Compare the answers that `serve` stores with the first ones of the version in production, and recommend what to
    do.

    `after`: windows up to this number raise no alarm, for those that were looked into. `ask`: questions whose
    facts are gone are asked again, of the version's arm with the documents as they are. `page`: a file for the
    same as an HTML page. `store`, `address` and `artifacts`: of `serve` and `registry`. `judgements`: what users
    said, the oldest first. `allow` is that of `study`. Raises MissingError where no traffic was kept or the
    embedding model is not there, InputError where there is too little to say anything.
    """
    own = as_task(task)
    require_consent(own, (), allow=allow, scores=False)
    with ExitStack() as opened:
        versions = _registry_of(own, address, artifacts)
        if versions:
            opened.enter_context(versions)
        traffic = _traffic_of(own, store, versions)
        if traffic:
            opened.enter_context(traffic)
        used = _in_use(own, traffic, versions)
        watched = _judged(judgements, used)
        found = _look(own, traffic, versions, used, watched, after=after, ask=ask, allow=allow)
    if page is None:
        return found
    from trimtab.upkeep.drift_page import render_drift

    write_atomic(Path(page), render_drift(found))
    return replace(found, page=str(page))


def _registry_of(task: Task, address: str | None, artifacts: str | None) -> Registry | None:
    """Open the registry of a task; return None if it has none and none is named."""
    try:
        return registry(task, address, artifacts=artifacts, make=False)
    except MissingError:
        if address is not None or upkeep_of(task).registry:
            raise
        return None


def _traffic_of(task: Task, store: str | None, versions: Registry | None) -> TrafficStore | None:
    """Open the store of answers; None without one where a version is in production, whose documents can be compared."""
    try:
        return traffic_of(task, store, make=False)
    except MissingError:
        if store is not None or versions is None or not versions.history(PRODUCTION):
            raise
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _InUse:
    """The answers of the version in production since it came there; `registered`: the version itself, where a
    registry keeps it."""

    arm: str
    version: str
    answers: Sequence[ServedAnswer]
    registered: Version | None


def _look(
    task: Task,
    traffic: TrafficStore | None,
    versions: Registry | None,
    used: _InUse,
    judged: QualityWatch | None,
    *,
    after: int,
    ask: bool,
    allow: Sequence[str],
) -> DriftReport:
    settings = upkeep_of(task).drift
    signals = _Signals(task, used.answers, settings.window)
    count = max(0, len(used.answers) // settings.window - 1)
    windows = tuple(_windows(signals, count, settings.alarm_free))
    quality = _quality(task, traffic, used, settings.window) if traffic else None
    documents, affected = _knowledge(task, versions, used)
    missing = settings.window * (count + 2) - len(used.answers)
    if not (windows or used.registered or judged or (traffic and quality and quality.points)):
        raise InputError(
            f"too few answers of version {used.version} to compare: "
            f"{len(used.answers):,} are kept, and {missing:,} more are needed",
            f"go on with {task.command('serve')}, or set a smaller window than {settings.window} under [upkeep] drift",
            file=traffic.name if traffic else None,
        )
    alarms = [one for one in windows if one.drifted and one.number > after]
    first = affected[:SHOWN]
    if ask and first and used.registered:
        first = ask_again(task, used.registered, first, allow)
    action, advice = _advice(task, used, alarms, quality, judged, affected, documents or ())
    if action == "nothing" and not windows:
        advice += f" {missing:,} more answers tell whether questions drift: {task.command('serve --alias production')}."
    return DriftReport(
        task=task.task.name,
        arm=used.arm,
        version=used.version,
        answers=len(used.answers),
        window=settings.window,
        alarm_free=settings.alarm_free,
        reference_began=used.answers[0].when if windows else None,
        windows=windows,
        missing=missing,
        examples=tuple(_examples(signals, alarms[0])) if alarms else (),
        quality=quality,
        judgements=judged,
        documents=documents,
        affected_questions=len(affected),
        affected=tuple(first),
        action=action,
        sentence=_sentence(windows, alarms, quality, judged, documents, affected),
        advice=advice,
        notes=(*_notes(windows, missing, after, quality, documents), *_training_notes(task, used.registered)),
    )


def _in_use(task: Task, traffic: TrafficStore | None, versions: Registry | None) -> _InUse:
    """Find the answers to look at, in the order in which they were kept: clocks may jump.

    With an alias `production` they are those of its version that were kept behind the last answer of the one it took
    over from; else those of the version which gave the newest answer.
    """
    every = traffic.answers() if traffic else []
    moves = versions.history(PRODUCTION) if versions else ()
    if versions and moves:
        version = str(moves[0].version)
        before = [place for place, one in enumerate(every) if one.version == str(moves[0].previous)]
        own = [one for one in every[before[-1] + 1 if before else 0 :] if one.version == version]
        registered = versions.show(moves[0].version)
        return _InUse(arm=registered.arm, version=version, answers=own, registered=registered)
    if not every:
        remedy = f"serve with a table [traffic] in the task file, and wait: {task.command('serve')}"
        raise InputError("no answer is kept", remedy, file=traffic.name if traffic else None)
    newest = every[-1]
    own = [one for one in every if (one.arm, one.version) == (newest.arm, newest.version)]
    return _InUse(arm=newest.arm, version=newest.version, answers=own, registered=None)


class _Signals:
    """The value of every signal of each answer, computed once. Part 0 begins the reference, part n is window n."""

    def __init__(self, task: Task, answers: Sequence[ServedAnswer], window: int) -> None:
        self.task, self.answers, self.window = task, answers, window

    def part(self, number: int) -> slice:
        return slice(number * self.window, (number + 1) * self.window)

    @cached_property
    def vectors(self) -> Vectors:
        """Return the embeddings of the questions, [N, D]: of each conversation's last turn, by the task's embedding
        model."""
        embedder = Embedder(resolve(self.task.base.embedding, near=self.task.folder))
        texts = [one.messages[-1].content for one in self.answers]
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        return embedder.encode(distinct)[[place[text] for text in texts]]

    @cached_property
    def numbers(self) -> Mapping[Signal, Sequence[float | None]]:
        """Return one number for each answer, None for an answer without one; flags are 0 and 1."""
        answers, own = self.answers, self.task.task
        found: dict[Signal, Sequence[float | None]] = {
            "abstained": [float(one.abstained) for one in answers],
            "confidence": [one.probability for one in answers],
            "similarity": [one.similarity for one in answers],
            "support": [None if one.supported is None else float(one.supported) for one in answers],
        }
        if own.kind != "classify":
            found["length"] = [float(len(one.answer.split())) for one in answers]
        if own.format:
            fits = format_checker(own.format, self.task.folder)
            found["format"] = [float(one.abstained or fits(one.answer)) for one in answers]
        return found

    def pooled(self, reference: int, number: int) -> tuple[Mapping[Signal, list[float]], list[str] | None, Vectors]:
        """Return numbers, labels and vectors of the first `reference` parts and of a window; signals that an answer
        lacks are left out."""
        both = (slice(0, reference * self.window), self.part(number))
        numbers = {name: [value for part in both for value in values[part]] for name, values in self.numbers.items()}
        whole = {name: [v for v in values if v is not None] for name, values in numbers.items()}
        labels = [one.answer for part in both for one in self.answers[part]]
        return (
            {name: values for name, values in whole.items() if len(values) == len(labels)},
            labels if self.task.task.kind == "classify" else None,
            np.concatenate([self.vectors[part] for part in both]),
        )


def window_statistics(
    numbers: Mapping[Signal, Sequence[float]], labels: Sequence[str] | None, vectors: Vectors
) -> dict[Signal, Statistic]:
    """Return the statistic of each signal of N pooled answers, the reference first: numbers [N] and flags, labels
    [N], vectors [N, D]."""
    found: dict[Signal, Statistic] = {
        "questions": mean_discrepancy(vectors),
        "classifier": classifier_margin(vectors),
        **{name: distribution_gap(values) for name, values in numbers.items()},
    }
    return found if labels is None else {**found, "labels": label_mix(labels)}


def signal_features(
    numbers: Mapping[Signal, Sequence[float]], labels: Sequence[str] | None, vectors: Vectors
) -> list[Array]:
    """Return what `block_length` compares of each signal of N answers: vectors, ranks of numbers, labels as flags."""
    found: list[Array] = [vectors.astype(np.float64), *(stats.rankdata(values) for values in numbers.values())]
    if labels is not None:
        found.append(np.unique(labels, return_inverse=True)[1][:, None] == np.arange(len(set(labels))))
    return found


def window_units(
    features: Sequence[Array], users: Sequence[str | None], reference: int, alarm_free: int
) -> Indices | str:
    """Return the unit of each pooled answer, the first `reference` of them the reference; or why there are too few.

    `features`: of `signal_features`, of which only the reference's tell how long a block has to be.
    """
    length = block_length([values[:reference] for values in features], users[:reference])
    if length is None:
        return "answers that follow one another are alike over too long a time"
    before = unit_codes(users[:reference], length)
    border = int(before.max()) + 1
    behind = unit_codes(users[reference:], length, begin=border)
    units = int(behind.max()) + 1
    if splits(units, border) < PERMUTATIONS * alarm_free:
        what = "blocks" if length > 1 else "users"
        return f"its answers are of {units - border} {what} and those before them of {border}, which is too few"
    return np.concatenate([before, behind])


def _windows(signals: _Signals, count: int, alarm_free: int) -> Iterator[DriftWindow]:
    """Test each window against the parts before it, at most REFERENCE of them and none from the first window that
    drifted on."""
    reference = 0
    drifted = False
    for number in range(1, count + 1):
        reference = reference if drifted else min(number, REFERENCE)
        window = _window(signals, reference, number, alarm_free)
        drifted = drifted or window.drifted
        yield window


def _window(signals: _Signals, reference: int, number: int, alarm_free: int) -> DriftWindow:
    numbers, labels, vectors = signals.pooled(reference, number)
    size = reference * signals.window
    own = signals.answers[signals.part(number)]
    users = [one.user for one in (*signals.answers[:size], *own)]
    units = window_units(signal_features(numbers, labels, vectors), users, size, alarm_free)
    if isinstance(units, str):
        return DriftWindow(
            number=number,
            reference=size,
            began=own[0].when,
            ended=own[-1].when,
            p=1.0,
            drifted=False,
            signals={},
            changes=(),
            why_not=units,
        )
    statistics = window_statistics(numbers, labels, vectors)
    found = drift_test(statistics, size, signals.window, alarm_free=alarm_free, units=units)
    drifted = found.p <= 1 / alarm_free
    changed = sorted((one.adjusted, name) for name, one in found.signals.items() if one.adjusted <= 1 / alarm_free)
    return DriftWindow(
        number=number,
        reference=size,
        began=own[0].when,
        ended=own[-1].when,
        p=found.p,
        drifted=drifted,
        signals={name: one.adjusted for name, one in found.signals.items()},
        changes=tuple(
            SignalChange(signal=name, p=p, sentence=_change(name, numbers, labels, vectors, size))
            for p, name in changed
        ),
    )


def _change(
    name: Signal, numbers: Mapping[Signal, list[float]], labels: list[str] | None, vectors: Vectors, size: int
) -> str:
    """Return in words what a signal was in the reference and is in the window."""
    if name == "questions":
        return "the questions are others than at first (by their embeddings)"
    if name == "classifier":
        share = classifier_accuracy(vectors, size)
        return f"a classifier tells {share:.0%} of the questions apart from the first ones; 50% would be chance"
    if name == "labels":
        label, first_share, share = _moved_label(labels or [], size)
        return f"{label!r} is answered in {share:.0%} of cases, at first in {first_share:.0%}"
    before, now = (np.array(part) for part in (numbers[name][:size], numbers[name][size:]))
    if name == "length":
        return f"answers have {np.median(now):.0f} words (median), at first {np.median(before):.0f}"
    if name in ("confidence", "similarity"):
        what = "the arm's probability of its answer" if name == "confidence" else "the similarity of the best passage"
        return f"{what} is {np.median(now):.2f} (median), at first {np.median(before):.2f}"
    what = {
        "abstained": "the arm abstains",
        "format": "answers fit the format",
        "support": "a passage supports the answer",
    }[name]
    return f"{what} in {now.mean():.0%} of cases, at first in {before.mean():.0%}"


def _moved_label(labels: list[str], size: int) -> tuple[str, float, float]:
    """Find the label whose share moved most, with its share in the reference and in the window."""
    before, now = Counter(labels[:size]), Counter(labels[size:])
    rest = len(labels) - size
    label = max(sorted(set(labels)), key=lambda one: abs(now[one] / rest - before[one] / size))
    return label, before[label] / size, now[label] / rest


def _examples(signals: _Signals, window: DriftWindow) -> list[DriftExample]:
    """Find the answers of a window that are most typical of its strongest change."""
    numbers, labels, vectors = signals.pooled(window.reference // signals.window, window.number)
    signal, size = window.changes[0].signal, window.reference
    if signal in INPUTS:
        score = typical(vectors, size)[size:]
    elif signal == "labels":
        label, before, now = _moved_label(labels or [], size)
        sign = 1 if now > before else -1
        score = np.array([sign if one == label else 0.0 for one in (labels or [])[size:]])
    else:
        own = np.array(numbers[signal])
        score = own[size:] * np.sign(own[size:].mean() - own[:size].mean())
    answers = signals.answers[signals.part(window.number)]
    shown: dict[str, DriftExample] = {}
    for place in np.argsort(-score, kind="stable"):
        question = answers[place].messages[-1].content
        if question not in shown:
            shown[question] = DriftExample(
                window=window.number, signal=signal, question=question, answer=answers[place].answer
            )
        if len(shown) == EXAMPLES:
            break
    return list(shown.values())


def _quality(task: Task, traffic: TrafficStore, used: _InUse, window: int) -> QualityWatch | None:
    """Hold the labels of the version's answers to the target, else to the lower end of the measured score; None
    without either.

    A batch is every run of whole days with at least FEWEST labels, each label weighed by the inverse of the probability
    with which it was drawn: answers of one day may be right or wrong alike.
    """
    floor = _floor(task, used)
    if floor is None:
        return None
    found = labelled(traffic, TRAFFIC, lambda draw: traffic.answers(after=draw.after_row, last=draw.last_row))
    known = {
        answer.id: (right, 1 / (inclusion * answer.share))
        for answer, right, inclusion in zip(found.answers, found.right, found.inclusion, strict=True)
        if not math.isnan(right) and not math.isnan(inclusion)
    }
    batches, ends, labels, waiting = [], [], [], []
    for number, one in enumerate(used.answers):
        if one.id in known:
            waiting.append(known[one.id])
        is_last_of_day = one is used.answers[-1] or used.answers[number + 1].when.date() != one.when.date()
        if is_last_of_day and len(waiting) >= FEWEST:
            batches.append(estimated_batch(waiting))
            ends.append(number // window)
            labels.append(len(waiting))
            waiting = []
    watched = watched_quality(batches, ends, labels, floor.value, DELTA, "days")
    judged = (found.judged.get(one.id, {}) for one in used.answers)
    return QualityWatch(
        floor=floor.value,
        floor_of=floor.what,
        delta=DELTA,
        labels=sum(one.id in known for one in used.answers),
        contradicted=sum(contradict(said.values()) for said in judged),
        points=watched.points,
        fell=watched.since is not None,
        since=watched.since,
        why_not=watched.why_not,
    )


def estimated_batch(labels: Sequence[tuple[float, float]]) -> RiskBatch:
    """Estimate the share wrong of weighted labels; its variance counts one more answer right and one more wrong
    (Agresti & Coull 1998)."""
    right, weight = (np.array(part) for part in zip(*labels, strict=True))
    risk = float(weight @ (1 - right) / weight.sum())
    effective = float(weight.sum() ** 2 / (weight @ weight))
    smooth = (effective * risk + 1) / (effective + 2)
    return RiskBatch(risk=risk, variance=smooth * (1 - smooth) / effective, labels=effective)


def _judged(judgements: Sequence[UserJudgement], used: _InUse) -> QualityWatch | None:
    """Hold users' judgements of the version to the first JUDGED of them; None with too few.

    Users choose whether they judge, so judgements are compared with each other alone. The floor is the lower 1 -
    DELTA/2 bound of the first share that was good (Clopper & Pearson 1934), and the bound of the later ones has the
    other half of DELTA.
    """
    versions = {used.version, used.registered.source if used.registered else used.version}
    own = [one.good for one in judgements if one.arm == used.arm and one.version in versions]
    first, later = own[:JUDGED], own[JUDGED:]
    if len(later) < FEWEST:
        return None
    floor = float(stats.beta.ppf(DELTA / 2, sum(first), JUDGED - sum(first) + 1)) if any(first) else 0.0
    groups = [later[start : start + FEWEST] for start in range(0, len(later) - FEWEST + 1, FEWEST)]
    batches = [estimated_batch([(float(good), 1.0) for good in group]) for group in groups]
    numbers = range(1, len(batches) + 1)
    watched = watched_quality(batches, numbers, [FEWEST] * len(batches), floor, DELTA / 2, "batches of ten")
    return QualityWatch(
        floor=floor,
        floor_of=f"what the first {JUDGED} judgements of users say at the least",
        delta=DELTA,
        labels=len(own),
        contradicted=0,
        points=watched.points,
        fell=watched.since is not None,
        since=watched.since,
        why_not=watched.why_not,
    )


@dataclass(frozen=True, slots=True)
class QualityPoints:
    """`since`: the `window` since which the quality is below the floor; `why_not`: why it cannot be told."""

    points: tuple[QualityPoint, ...]
    since: int | None
    why_not: str | None = None


def watched_quality(
    batches: Sequence[RiskBatch], ends: Sequence[int], labels: Sequence[int], floor: float, delta: float, what: str
) -> QualityPoints:
    """Return the quality of each batch and since when it is below the floor. Batches that are like their neighbours are
    taken together; `what`: the name of the batches in messages."""
    together = independent_batches(batches)
    why_not = None
    if together is None:
        together, why_not = [[place] for place in range(len(batches))], f"{what} that follow one another are alike"
    elif len(together) < LEAST_BATCHES:
        why_not = f"it takes {LEAST_BATCHES} {what} with labels that are not like their neighbours'"
        why_not = f"{why_not}, and there are {len(together)}"
    joined = [joined_batches([batches[place] for place in places]) for places in together]
    bounds = risk_bounds(joined, 1 - floor, delta)
    points = tuple(
        QualityPoint(
            window=ends[places[-1]],
            labels=sum(labels[place] for place in places),
            quality=1 - batch.risk,
            at_most=1.0 if why_not else 1 - bound.low,
        )
        for places, batch, bound in zip(together, joined, bounds, strict=True)
    )
    fell = next((place for place, point in enumerate(points) if point.at_most < floor), None)
    return QualityPoints(points, None if fell is None else ends[together[bounds[fell].since][0]], why_not)


@dataclass(frozen=True, slots=True)
class _Floor:
    value: float
    what: str


def _floor(task: Task, used: _InUse) -> _Floor | None:
    """Find what the quality is held to; None without a target or a measured score that is a share of right answers."""
    metric, low = None, None
    if used.registered is not None:
        if used.registered.score is not None:
            metric, low = used.registered.score.metric, used.registered.score.low
    else:
        saved = None
        with suppress(MissingError, InputError):
            saved = find_saved(task, parse_arm(used.arm, task), used.version)
        if saved is not None and saved.result is not None and saved.result.score is not None:
            study = read_result(study_of(saved))
            metric, low = study.metric if study else None, saved.result.score.low
    metric = metric or task.metric
    if not find_metric(metric).is_share:  # labels are of right answers
        return None
    if task.target.quality is not None:
        return _Floor(task.target.quality, "the target of the task file")
    return None if low is None else _Floor(low, "the lower end of its measured score")


def _knowledge(
    task: Task, versions: Registry | None, used: _InUse
) -> tuple[tuple[ChangedDocument, ...] | None, tuple[AffectedQuestion, ...]]:
    """Find the documents that changed since the version was made, and the questions that they touch."""
    if versions is None or used.registered is None or not task.data.documents:
        return None, ()
    before = version_documents(versions, used.registered)
    if before is None:
        return None, ()
    words = used.registered.settings.get("chunk_words", WORDS)
    changes = compare_documents(task, before, int(words) if isinstance(words, int | float) else WORDS)
    return changes.documents, tuple(affected_questions(task, changes, used.answers))


def _sentence(
    windows: Sequence[DriftWindow],
    alarms: Sequence[DriftWindow],
    quality: QualityWatch | None,
    judged: QualityWatch | None,
    documents: Sequence[ChangedDocument] | None,
    affected: Sequence[AffectedQuestion],
) -> str:
    """Say what was found, the worst first."""
    found = []
    if quality and quality.fell:
        found.append(
            f"The quality has fallen below {quality.floor:.3f}, {quality.floor_of}, since window {quality.since}: "
            f"it is at most {quality.points[-1].at_most:.3f}."
        )
    if alarms:
        first = alarms[0]
        what = "; ".join(change.sentence for change in first.changes) or "several signals together"
        found.append(f"Drift since window {first.number} ({first.began:%Y-%m-%d}), p = {first.p:.4f}: {what}.")
    if judged and judged.fell:
        found.append(
            f"Users like fewer answers: at most {judged.points[-1].at_most:.0%}, "
            f"and {judged.floor:.0%} is {judged.floor_of}."
        )
    if documents:
        lost = sum(one.facts for one in documents)
        found.append(
            f"Documents that changed: {len(documents):,}; facts gone from them: {lost:,}; "
            f"questions that rest on these: {len(affected):,}."
        )
    judged_windows = sum(one.why_not is None for one in windows)
    if not alarms and windows:
        none = "Whether the questions have drifted cannot be told."
        found.append(f"No drift in {judged_windows:,} window{'s' * (judged_windows != 1)}." if judged_windows else none)
    return " ".join(found) or "Nothing has changed that is known."


def _advice(
    task: Task,
    used: _InUse,
    alarms: Sequence[DriftWindow],
    quality: QualityWatch | None,
    judged: QualityWatch | None,
    affected: Sequence[AffectedQuestion],
    documents: Sequence[ChangedDocument],
) -> tuple[DriftAction, str]:
    """Choose the one thing to do first."""
    if quality and quality.fell:
        return (
            "refresh",
            "Refresh (trimtab refresh): the arm is worse than it has to be. Newer labelled rows make a new version.",
        )
    lost = sum(one.facts for one in documents)
    if affected or lost:
        why = f"{len(affected):,} questions rest on facts that are gone" if affected else f"{lost:,} facts are gone"
        update = f"{task.command('refresh')} updates the index of version {used.version}, and measures it."
        return "refresh", f"Refresh ({task.command('refresh')}): {why}. {update if used.registered else ''}".strip()
    if not alarms and not (judged and judged.fell):
        new = f" {task.command('refresh')} brings the documents of today into production." if documents else ""
        return "nothing", f"Nothing has to be done.{new}"
    changed = {change.signal for one in alarms for change in one.changes}
    if changed and changed <= set(RETRIEVAL) and not (judged and judged.fell):
        return (
            "retrieval",
            "Look at the retriever and the documents: the questions are as before, what is found for them is not.",
        )
    return (
        "label",
        f"Label {_labels_wanted(quality)} answers (trimtab label --new): only labels say whether the arm is worse.",
    )


def _training_notes(task: Task, version: Version | None) -> Iterator[str]:
    """Yield when the weights of a version are due to be trained again, where the task file says how fast facts
    change."""
    if task.cost.change is None or version is None or version.score is None or version.weights_sha256 is None:
        return
    if version.index_sha256 is not None:
        return  # it reads the facts
    due = training_due(version.score.low, version.created.date(), task)
    if due is None:
        yield "Facts change (cost.change), and no day is known on which the weights must be trained again."
        return
    again = f"{task.command('refresh')} trains them again, {task.command('study')} tells what that costs"
    verb = "were" if due <= datetime.now(UTC).date() else "are"
    yield f"Facts change (cost.change): the weights {verb} due to be trained again on {due:%Y-%m-%d}; {again}."


def _labels_wanted(quality: QualityWatch | None) -> int:
    """Compute how many labels tell the quality to ±HALF_WIDTH, at the floor, or at 0.5 where there is none."""
    share = quality.floor if quality else 0.5
    return max(FEWEST, math.ceil(1.96**2 * share * (1 - share) / HALF_WIDTH**2))


def _notes(
    windows: Sequence[DriftWindow],
    missing: int,
    after: int,
    quality: QualityWatch | None,
    documents: Sequence[ChangedDocument] | None,
) -> list[str]:
    """List what a reader should know besides."""
    notes = []
    if not windows:
        notes.append(f"Too few answers to compare: {missing:,} more are needed for the first window.")
    silent = [one for one in windows if one.why_not]
    if silent:
        numbers = ", ".join(str(one.number) for one in silent)
        notes.append(
            f"Not judged: window{'s' * (len(silent) != 1)} {numbers}. Of the last: {silent[-1].why_not}. Set a larger "
            "window under [upkeep] drift."
        )
    passed = [one.number for one in windows if one.drifted and one.number <= after]
    if passed:
        notes.append(f"Windows that drifted and were looked into: {', '.join(map(str, passed))}.")
    if quality is None:
        notes.append(
            "The quality is not watched: that takes a target or a measured score, in a metric whose score is a share "
            "of right answers."
        )
    elif not quality.points:
        notes.append(f"The quality is not known: {quality.labels} answers are labelled, and it takes {FEWEST}.")
    elif quality.why_not:
        notes.append(f"Whether the quality fell cannot be told yet: {quality.why_not}.")
    if quality and quality.contradicted:
        notes.append(f"Answers that one person calls right and another wrong count by half: {quality.contradicted:,}.")
    if documents is None:
        notes.append(
            "Whether documents changed is not known: only a version in a registry keeps those it was made from."
        )
    return notes
