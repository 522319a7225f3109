"""Frozen records of results: estimates with intervals, costs, arms, comparisons, the verdict, a whole study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from trimtab.base.machine import is_busy
from trimtab.base.records import Arm, Setting
from trimtab.base.show import Shown, ShownRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate with its two-sided 95% interval (unadjusted) and the number of items.

    `n_effective`: the number of equally weighted items with the same precision, if items are weighted by `data.mix`.
    """

    value: float
    low: float
    high: float
    n: int
    n_effective: float | None = None
    WITHOUT_NONE: ClassVar = ("n_effective",)

    @property
    def effective(self) -> str:
        """Return the effective number of questions in words; empty without weights."""
        if self.n_effective is None:
            return ""
        return f"{self.n:,} test questions weighted by data.mix, as sure as {self.n_effective:,.0f} that count alike"

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the on-disk form."""
        return {"score": plain.pop("value"), **plain}

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields from the on-disk form."""
        return {"value" if key == "score" else key: value for key, value in plain.items()}


def _with_score(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with its score's figures moved into an object of their own."""
    figures = ("score", "low", "high", "n", "n_effective")
    rest = {key: value for key, value in plain.items() if key not in figures}
    return {**rest, "score": {key: plain.get(key) for key in figures}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The rows of each split that are used, of how many. `rows`: requested of all; None for a sample of test alone."""

    rows: int | None
    used: Mapping[str, int]
    of: Mapping[str, int]

    @property
    def sentence(self) -> str:
        """Return the sample in one line."""
        splits = ", ".join(
            f"{self.used[name]:,} of {whole:,} {'test questions' if name == 'test' else name}"
            for name, whole in self.of.items()
            if whole != self.used[name]
        )
        return f"A sample: {splits}."


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSpent:
    """A study's budget as it was given, its seconds (`of`), and the seconds that the study took."""

    budget: str
    of: float
    seconds: float

    @property
    def sentence(self) -> str:
        """Return both in one line, without a full stop."""
        over = f", {self.seconds / self.of - 1:.0%} more" if round(self.seconds / self.of, 2) > 1 else ""
        took = f"{self.seconds / 60:,.1f} min" if self.seconds >= 60 else f"{self.seconds:.0f} s"
        return f"budget {self.budget}, took {took}{over}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """Precision, recall and F1 of one class; 0 where precision has no answer to divide by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Results of a classifier by class, and its accuracy on the most confident shares of its answers."""

    rows: tuple[ClassRow, ...]
    selective: Mapping[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms on the same items: a minus b, its 95% interval, the p-value, and p after Holm's correction."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    def swapped(self) -> Comparison:
        """Return the same comparison as b minus a."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of an arm over the horizon, in `currency`, or in machine seconds without a price.

    `low` and `high`: the total at the ends of the 95% interval of the seconds per question, if known; if other
    programs kept the machine busy, `low` counts none of the seconds measured then.
    """

    total: float
    up_front: float
    monthly: float
    currency: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFee:
    """The price of an endpoint per million input and output tokens, in the task's currency."""

    input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The measured resource use of an arm. Tokens and seconds per question are means, one question at a time."""

    train_seconds: float
    evaluation_seconds: float
    index_seconds: float
    seconds_per_question: float
    prompt_tokens: float
    new_tokens: float
    runs_on_own_machine: bool
    trained: bool
    token_fee: TokenFee | None
    choose_seconds: float = 0.0  # seconds of choosing the context on dev, before training
    choose_fee: float = 0.0  # fee of an endpoint that proposed instructions or was the teacher, in the task's currency
    labels: int = 0  # labelled rows and judged answers that the arm was trained on or shows as examples
    seconds_error: float = 0.0  # standard error of the seconds per question, 0 where it is not known
    # share of the processor that other programs left during training, and during timing; None if unknown
    making_share: float | None = None
    answering_share: float | None = None

    @property
    def processor_share(self) -> float | None:
        """Return the smaller of the two processor shares; None if neither is known."""
        return min((one for one in (self.making_share, self.answering_share) if one is not None), default=None)

    @property
    def goes_stale(self) -> bool:
        """True if its knowledge is in its weights alone: it was trained and reads no documents when it answers."""
        return self.trained and self.index_seconds == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A change of circumstance that would change the verdict to `then`: `what` going below `below` or above `above`."""

    what: str
    then: str
    below: float | None = None
    above: float | None = None
    WITHOUT_NONE: ClassVar = ("below", "above")


OWN_INSTRUCTION = "as in the task file"  # a trial's instruction: the task's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting that an arm tried on train and dev: the number of dev rows, the seconds, and whether it was selected.

    `dev_loss` and `dev_metric` of a training are those of its first dev evaluation, which all have. `at_end`: if
    trained to the end, the loss of the weights that were kept, or the metric if nothing has a loss. `found`: for a
    retrieval setting, the share of the rows with a right passage; nothing was answered there.
    """

    what: Mapping[str, Setting]
    dev_loss: float | None
    dev_metric: float | None
    rows: int
    seconds: float
    kept: bool
    found: float | None = None
    at_end: float | None = None
    WITHOUT_NONE: ClassVar = ("found", "at_end")


Stopped = Literal["no trial was better", "budget", "edge of the ladder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reflection:
    """Instructions that another model rewrote for an arm. `by`: that model. `calls`: its replies.

    `refused`: replies that repeat rows, are empty or too long. `compared`: those that did better on the training rows
    they were written for, and were compared on dev. `kept`: True if dev favoured one of them. `questions`: training
    rows answered on the way. `seconds`: of these and of the replies; `fee`: in the task's currency.
    """

    by: str
    calls: int = 0
    refused: int = 0
    compared: int = 0
    kept: bool = False
    questions: int = 0
    seconds: float = 0.0
    fee: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEffort:
    """The search effort of an arm: its trials on train and dev, their seconds, and why it stopped.

    `improving`: True if it was still improving when it stopped, so more time might have given more. `reflection`: of
    its instruction by another model; None without one.
    """

    seconds: float
    trials: tuple[Trial, ...]
    stopped: Stopped
    improving: bool = False
    reflection: Reflection | None = None
    WITHOUT_NONE: ClassVar = ("reflection",)

    def and_then(self, later: ArmEffort) -> ArmEffort:
        """Return two consecutive searches as one."""
        stops = (self.stopped, later.stopped)
        return ArmEffort(
            seconds=self.seconds + later.seconds,
            trials=(*self.trials, *later.trials),
            stopped=next((stop for stop in stops if stop != "no trial was better"), stops[0]),
            improving=self.improving or later.improving,
            reflection=self.reflection or later.reflection,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Mean dev score after training on a number of rows."""

    rows: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """Dev score of a trained arm by training rows, and the predicted gain from `more` rows with its 95% interval."""

    points: tuple[CurvePoint, ...]
    questions: int
    more: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Exposure: by how much memorisation canaries are memorised better than rows never trained on, in bits.

    `controls`: the number of those rows. `possible`: the largest exposure that so many can show: the loss of a row is
    below that of all of them.
    """

    canaries: int
    controls: int
    mean: float
    highest: float
    possible: float

    @classmethod
    def of_seeds(cls, found: Sequence[Exposure]) -> Exposure | None:
        """Return the mean, and the highest, over several runs; None without any."""
        if not found:
            return None
        mean, highest = sum(one.mean for one in found) / len(found), max(one.highest for one in found)
        return replace(found[0], mean=mean, highest=highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBit:
    """Int8 weights compared with the arm's own, on the same `questions`.

    `lost`: the mean score with its own weights less that with int8 weights, with its 95% interval. `same`: the share
    of equal answers. `times_as_fast`: for single questions, by medians; None if too few were timed.
    """

    questions: int
    lost: float
    low: float
    high: float
    same: float
    times_as_fast: float | None

    @property
    def sentence(self) -> str:
        """Return the comparison in one line."""
        speed = f", {self.times_as_fast:.2f} times as fast" if self.times_as_fast else ""
        lost = f"score lost {self.lost:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.questions} questions"
        return f"in 8 bits: {lost}, {self.same:.0%} of the answers alike{speed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenAnswer:
    """A question as a probe asked it, with the answer before and after the change."""

    asked: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The score of an arm under a change that the test questions do not contain.

    `probe`: its name in the task file. `change`: what is different, in words that follow the name of the arm's answers
    ("with typing errors"). `before` and `after`: the mean without and with the change, of `n` questions. `difference`:
    after minus before, with its 95% interval. `p`: two-sided, of "no difference"; `p_holm`: after Holm over the arm's
    probes. `found`: the change is shown to cost more than the margin. `examples`: up to three answers that
    the change turned wrong.
    """

    probe: str
    change: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float = 1.0
    found: bool = False
    examples: tuple[BrokenAnswer, ...] = ()

    @property
    def sentence(self) -> str:
        """Return both means in one clause: `with typing errors .71 instead of .84`."""
        return f"{self.change} {self.after:.2f} instead of {self.before:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ArmResult(Shown):
    """The result of one arm in a study. Unless `status == "done"` there is a `why` and no score.

    On disk the score's figures are its own keys; without a score there is only `why`. `score_floor`: the score's
    lower one-sided 95% bound. `latency_p95_high_ms`: the upper bound of the 95th percentile, which is compared with
    a limit. `processor_share`: the share of the processor that other programs left during training or timing, the
    smaller of the two; on disk `busy_machine` marks one that is too small for valid timings.
    """

    arm: str
    status: Literal["done", "failed", "not_run"]
    why: str | None = None
    score: Estimate | None = None
    score_floor: float | None = None
    seeds: int = 1
    seed_scores: tuple[float, ...] = ()
    passes: bool | None = None
    p_target: float | None = None
    format_ok: float | None = None
    abstention: Mapping[str, float] = field(default_factory=dict)
    slices: Mapping[str, Estimate] = field(default_factory=dict)
    extras: Mapping[str, float] = field(default_factory=dict)
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    peak_memory_mb: float | None = None
    stored_bytes: int = 0
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p95_high_ms: float | None = None
    seconds_per_question: float | None = None
    cost: Cost | None = None
    chosen: Mapping[str, float | int | str] = field(default_factory=dict)
    effort: ArmEffort | None = None
    learning: LearningCurve | None = None
    exposure: Exposure | None = None
    eight_bit: EightBit | None = None
    processor_share: float | None = None
    probes: tuple[Probe, ...] = ()
    WITHOUT_NONE: ClassVar = ("why", "exposure", "eight_bit", "processor_share")

    @property
    def exact(self) -> str:
        """Return the share of answers that equal a reference, as `31.0%`; empty where it is not told."""
        return f"{self.extras['exact']:.1%}" if "exact" in self.extras else ""

    @property
    def busy_machine(self) -> bool:
        """True if it was measured on a busy machine."""
        return is_busy(self.processor_share)

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the form of `study.json`."""
        if self.status != "done":
            return {key: plain.get(key) for key in ("arm", "status", "why")}
        busy = {"busy_machine": True} if self.busy_machine else {}
        plain = plain if self.probes else {key: value for key, value in plain.items() if key != "probes"}
        return {**plain, **busy, **(plain["score"] or {})}

    @property
    def headline(self) -> str:
        """Return the score in one line, or the reason that there is none."""
        if self.score is None:
            return f"{self.arm}, {self.status.replace('_', ' ')}: {self.why}"
        one = self.score
        exact = f", {self.exact} exactly right" if self.exact else ""
        return f"{self.arm}: {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] on {one.n:,} questions{exact}"

    def screen(self) -> Sequence[ShownRow]:
        """Return no rows: the headline says everything; the rest is in the attributes."""
        return []

    @property
    def row(self) -> ShownRow:
        """Return the row of this arm in a table of arms."""
        if self.score is None:
            return {"arm": self.arm, "score": self.status.replace("_", " ")}
        cost = self.cost
        return {
            "arm": self.arm,
            "score": f"{self.score.value:.3f}",
            "95% interval": f"[{self.score.low:.3f}, {self.score.high:.3f}]",
            **({"exact": self.exact} if self.exact else {}),
            "passes": {True: "yes", False: "no", None: None}[self.passes],
            "p50 ms": self.latency_p50_ms,
            f"cost {cost.currency}" if cost else "cost": cost.total if cost else None,
        }

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields from the on-disk form, with the score as a record of its own."""
        plain = {key: value for key, value in plain.items() if key != "busy_machine"}
        return _with_score(plain) if "low" in plain else dict(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialArm:
    """Score of a baseline without a model. `not_beaten_by`: the arms that are not shown to be better."""

    arm: str
    score: Estimate
    not_beaten_by: tuple[str, ...] = ()

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Return the form of `study.json`: its score's figures beside its name."""
        return {"arm": plain["arm"], **plain["score"], "not_beaten_by": plain["not_beaten_by"]}

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields from the on-disk form, with the score as a record of its own."""
        return _with_score(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRecord:
    """`arm.json`: a finished arm of a study, with the inputs of its cost. `digest`: the hash of its fingerprint.

    `seconds`: in all processes. `dev_scores`: the score of each dev question answered on the way, by id.
    `latencies`: seconds of questions asked alone, of all passes.
    """

    arm: Arm
    digest: str
    model: str
    revision: str | None
    embedding: str
    usage: Usage
    result: ArmResult
    classes: Classes | None
    seconds: float | None = None
    dev_scores: Mapping[str, float] = field(default_factory=dict)
    latencies: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessCheck:
    """The decision repeated with one change: `what` changed, and the arm that is then shown, None for none."""

    what: str
    arm: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmOutlook:
    """The chances and expected losses of an arm, from posterior draws of the true scores.

    `good_enough`: the chance that it reaches the target, or without one is at most the margin behind the best arm.
    `lightest`: the chance that it is the lightest arm that is good enough. `shortfall`: the expected distance below the
    target, or without one behind the best arm, and `worst`: the distance that is exceeded in 5% of the draws; both
    between 0 and 1, like scores. `loss`: the expected shortfall and the cost together, in points of 100.
    """

    arm: str
    good_enough: float
    lightest: float
    shortfall: float
    worst: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreQuestions:
    """The expected fall of the loss, in points of 100 (`saves`), if so many more test questions are labelled.

    `cost`: of their labels; None without a price.
    """

    questions: int
    saves: float
    cost: float | None = None


Certainty = Literal["shown", "very likely", "likely", "toss-up", "only one"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """The arm to take today: the one with the least expected loss.

    `certainty`: `shown` where the tests of the verdict show this arm; else by the chance that it is the lightest that
    is good enough; `only one` where there is neither a target nor another arm. `arms`: of all that can be used, light
    to heavy. `point`: what a point of 100 is worth in a month, in the unit of the costs; `point_stated`: False where it
    is assumed. `rival`: the arm to take in its place where a point is worth more (or less) than `rival_point` a month.
    `more`: the value of more questions.
    """

    arm: str
    certainty: Certainty
    arms: tuple[ArmOutlook, ...]
    point: float | None
    point_stated: bool
    rival: str | None = None
    rival_point: float | None = None
    more: tuple[MoreQuestions, ...] = ()

    @property
    def outlook(self) -> ArmOutlook:
        """Return the chances and losses of the chosen arm."""
        return next(one for one in self.arms if one.arm == self.arm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision: `shown` with an arm, or `not_shown` with what would settle it.

    `sentence`: what to do. `before_relying`: at most five short lines. `details`: what is shown and what is not, in
    full, and the figures. `today`: the arm to take today, shown or not; None where none can be used.
    `picked`: the score of the arm with the highest score, corrected for the selection among several. `robustness`:
    the decision at other margins or targets, by other metrics, without one run and without the largest group.
    """

    status: Literal["shown", "not_shown"]
    arm: str | None
    sentence: str
    flips: tuple[Flip, ...] = ()
    needs: str | None = None
    picked: Estimate | None = None
    robustness: tuple[RobustnessCheck, ...] = ()
    today: Today | None = None
    before_relying: tuple[str, ...] = ()
    details: str = ""
    WITHOUT_NONE: ClassVar = ("today",)

    @property
    def use(self) -> str | None:
        """Return the arm to use: the one to take today, which may not be shown yet; None for none."""
        return self.today.arm if self.today else self.arm


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedArm:
    """Agreement of the metric with people on an arm's answers, and the score corrected by it.

    `sensitivity`: the share of answers that people call right which the metric accepts. `specificity`: the share of
    those they call wrong which it rejects. Both are None if there are no such answers. `kappa`: Cohen's. All three are
    None if the metric gives parts of a point, which say neither right nor wrong.
    `metric_score`: the score by the metric alone.
    """

    arm: str
    questions: int
    sensitivity: Estimate | None
    specificity: Estimate | None
    kappa: Estimate | None
    metric_score: Estimate
    corrected: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of people who judged the same answers by a criterion; it is empty where these are right or wrong.

    `alpha`: Krippendorff's, over `n` answers; `disagree`: those of which they say different things.
    """

    criterion: str
    people: tuple[str, ...]
    alpha: Estimate
    disagree: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanAudit:
    """Human judgements of a study's answers. `answers`: their number. `questions`: those judged for every arm.

    `by`: how many judgements each person gave. `agreement`: by criterion, where several people judged the same answers.
    `unused`: imported questions that stand for no others, since nobody says that they were drawn at random.

    `why_not`: why the verdict does not use it; None where scores and differences are the corrected ones. `n_effective`:
    the number of equally weighted judged questions with the same precision, if questions are weighted by `data.mix`.
    """

    answers: int
    questions: int
    arms: tuple[AuditedArm, ...]
    why_not: str | None
    n_effective: float | None = None
    by: dict[str, int] = field(default_factory=dict)
    agreement: tuple[Agreement, ...] = ()
    unused: int = 0
    WITHOUT_NONE: ClassVar = ("n_effective",)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """An arm's score on the newer half of the test questions (from `since` on) minus that on the older half.

    `stretches`: of how many independent stretches of time the halves are where questions near in time do alike; 0
    where they do not.
    """

    arm: str
    since: str
    newest: Estimate
    earlier: Estimate
    difference: float
    low: float
    high: float
    stretches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakClass:
    """A frequent class whose recall is far below that of the `rest`, all other questions.

    `share`: of the test questions. `p_holm`: of "its recall is not below", after Holm over the frequent classes.
    """

    label: str
    share: float
    recall: Estimate
    rest: Estimate
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The number of questions that costs are computed for; `assumed` if the task file does not state it."""

    questions_per_month: float
    horizon_months: float
    assumed: bool

    @property
    def questions(self) -> float:
        """Return the number of questions over the whole horizon."""
        return self.questions_per_month * self.horizon_months


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyResult(Shown):
    """A whole study, as in `study.json`. `level`: the significance level of its tests after correction.
    `weak_classes`: of the arm that the verdict speaks of. `to_judge`: how many questions people must have judged in all
    to settle the choice, by a judged score or an audit; None where no number would.
    """

    study: str
    task: str
    metric: str
    target: float | None
    verdict: Verdict
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...]
    report: str
    volume: Volume | None = None
    level: float = 0.05
    trivial: tuple[TrivialArm, ...] = ()
    sample: Sample | None = None
    audit: HumanAudit | None = None
    over_time: OverTime | None = None
    weak_classes: tuple[WeakClass, ...] = ()
    spent: BudgetSpent | None = None
    to_judge: int | None = None
    WITHOUT_NONE: ClassVar = ("sample", "audit", "over_time", "spent", "to_judge")

    @property
    def ran(self) -> bool:
        """True if any arm was measured; otherwise the study is not done."""
        return any(arm.status == "done" for arm in self.arms)

    @property
    def headline(self) -> str:
        """Return the verdict's sentence."""
        return self.verdict.sentence

    def screen(self) -> Sequence[ShownRow]:
        """Return one row for each arm; the rest is in the attributes and in the report."""
        return [arm.row for arm in self.arms]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDifference:
    """An arm in two studies: its scores, and the difference (this minus the other), with its 95% interval.

    `questions`: the number of common questions; without any, and for macro-F1, which is no mean over questions,
    there is no difference.
    """

    arm: str
    score: float | None
    other: float | None
    difference: float | None
    low: float | None
    high: float | None
    questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A difference between two studies: a key of the task file, or an entry of the manifest."""

    what: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyComparison(Shown):
    """The comparison of two studies with the same metric. `arms`: first minus second, paired by question."""

    first: str
    second: str
    metric: str
    first_verdict: str
    second_verdict: str
    changes: tuple[Changed, ...]
    arms: tuple[ArmDifference, ...]
    page: str | None = None

    @property
    def headline(self) -> str:
        """Return the number of changes from the second study to the first."""
        count = len(self.changes)
        return f"{self.first} and {self.second}: {count} thing{'s' * (count != 1)} changed"

    def screen(self) -> list[ShownRow]:
        """Return one row for each arm."""
        return list(self.tables()["arms"])
