"""What is found out, as frozen records: figures with intervals, costs, arms, comparisons, the verdict, a whole study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from trimtab.base.machine import is_busy
from trimtab.base.records import Arm, Setting
from trimtab.base.show import Shown, ShownRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its two-sided 95% interval (unadjusted) and the number of items behind it; in files `value` is `score`.

    `n_effective`: how many items that weigh alike would be as sure, where items are weighted by `data.mix`.
    """

    value: float
    low: float
    high: float
    n: int
    n_effective: float | None = None

    @property
    def effective(self) -> str:
        """In words, how many questions those that are weighted count as; empty where they are not."""
        if self.n_effective is None:
            return ""
        return f"{self.n:,} test questions weighted by data.mix, as sure as {self.n_effective:,.0f} that count alike"

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in files; no word of an effective number where all items weigh the same."""
        if plain["n_effective"] is None:
            del plain["n_effective"]
        return {"score": plain.pop("value"), **plain}

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """By its fields again."""
        return {"value" if key == "score" else key: value for key, value in plain.items()}


def _with_score(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The object in which a score's figures stand as they are, with the score as an object of its own."""
    figures = ("score", "low", "high", "n", "n_effective")
    rest = {key: value for key, value in plain.items() if key not in figures}
    return {**rest, "score": {key: plain.get(key) for key in figures}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The rows of each split that are used, and how many there are; `rows`: what was asked for of all, None where only of the test."""

    rows: int | None
    used: Mapping[str, int]
    of: Mapping[str, int]

    @property
    def sentence(self) -> str:
        """In one line."""
        splits = ", ".join(
            f"{self.used[name]:,} of {whole:,} {'test questions' if name == 'test' else name}"
            for name, whole in self.of.items()
            if whole != self.used[name]
        )
        return f"A sample: {splits}; the other rows take no part."


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of a classification: 0 where precision has no answer to divide by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """A classifier by class, and its accuracy on the surest share of its answers; empty where it gives no probabilities."""

    rows: tuple[ClassRow, ...]
    selective: Mapping[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two arms on the same items: a minus b, its 95% interval, the p-value, and p after Holm over the planned family."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float

    def swapped(self) -> Comparison:
        """The same comparison as b minus a."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an arm costs over the horizon, in `currency`, or in machine seconds when no price was given.

    `low` and `high`: the total at the ends of the 95% interval of the seconds per question, where that is known; where other programs kept
    the machine busy, `low` counts none of the seconds measured then.
    """

    total: float
    up_front: float
    monthly: float
    currency: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFee:
    """What an endpoint asks for a million tokens in and out, in the task's currency."""

    input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an arm was measured to use; tokens and seconds per question are means, one question at a time."""

    train_seconds: float
    evaluation_seconds: float
    index_seconds: float
    seconds_per_question: float
    prompt_tokens: float
    new_tokens: float
    runs_on_own_machine: bool
    trained: bool
    token_fee: TokenFee | None
    choose_seconds: float = 0.0  # of choosing on dev what the model sees, before anything is trained
    choose_fee: float = 0.0  # of an endpoint that proposed instructions or taught, in the task's currency
    labels: int = 0  # rows and judged answers that people labelled and the arm learned from or showed as examples
    seconds_error: float = 0.0  # standard error of the seconds per question, 0 where it is not known
    # of the processor, that other programs left while it was made, and while questions were timed; None where it is not known
    making_share: float | None = None
    answering_share: float | None = None

    @property
    def processor_share(self) -> float | None:
        """The lesser of the two shares; None where neither is known."""
        return min((one for one in (self.making_share, self.answering_share) if one is not None), default=None)

    @property
    def goes_stale(self) -> bool:
        """Whether what it knows stands in its weights alone: trained, and no documents are read when it answers."""
        return self.trained and self.index_seconds == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A change of circumstance that would change the verdict: `what` crossing `below` or `above` makes it `then`.

    `trivial`: where no arm is shown there because an answer without a model reaches the target, that answer's name.
    """

    what: str
    then: str
    below: float | None = None
    above: float | None = None
    trivial: str | None = None

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """Without the side that it has not."""
        return {key: value for key, value in plain.items() if value is not None}


OWN_INSTRUCTION = "as in the task file"  # of a trial: not a rewording


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One setting that an arm tried on train and dev: on how many rows it was read, what it took, whether it was kept.

    `dev_loss` and `dev_metric` of a training are those of its first look, which all have; `at_end`: of one that was trained to its
    end, the loss of the weights that it kept, the metric where nothing has a loss.
    `found`: of a way of looking passages up, the share of the rows that were shown a right one; nothing was answered there.
    """

    what: Mapping[str, Setting]
    dev_loss: float | None
    dev_metric: float | None
    rows: int
    seconds: float
    kept: bool
    found: float | None = None
    at_end: float | None = None

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in `study.json`; no word of what was not looked up, or not trained to an end."""
        return {key: value for key, value in plain.items() if key not in ("found", "at_end") or value is not None}


Stopped = Literal["no trial was better", "budget", "edge of the ladder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEffort:
    """What an arm spent on its own search, everything on train and dev, and why it ended.

    `improving`: it was still getting better when it ended, so more time might have given more.
    """

    seconds: float
    trials: tuple[Trial, ...]
    stopped: Stopped
    improving: bool = False

    def and_then(self, later: ArmEffort) -> ArmEffort:
        """Two searches that followed each other as one."""
        stops = (self.stopped, later.stopped)
        return ArmEffort(
            seconds=self.seconds + later.seconds,
            trials=(*self.trials, *later.trials),
            stopped=next((stop for stop in stops if stop != "no trial was better"), stops[0]),
            improving=self.improving or later.improving,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The mean score on dev after training on so many rows."""

    rows: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """How a trained arm's score on dev grows with the rows, and what `more` of them would add, with its 95% interval."""

    points: tuple[CurvePoint, ...]
    questions: int
    more: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How far made rows that were trained on stand out of `controls` like them that never were, in bits of exposure.

    `possible` is the most that so many controls can show: the loss of a row is below that of all of them.
    """

    canaries: int
    controls: int
    mean: float
    highest: float
    possible: float

    @classmethod
    def of_seeds(cls, found: Sequence[Exposure]) -> Exposure | None:
        """Of several runs the mean, and the highest of any; None for none."""
        if not found:
            return None
        mean, highest = sum(one.mean for one in found) / len(found), max(one.highest for one in found)
        return replace(found[0], mean=mean, highest=highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBit:
    """What weights of 8 bits cost an arm and gain it, against the same arm with its own, on the same `questions`.

    `lost`: the mean score with its own weights less that in 8 bits, with its 95% interval; `same`: the share of answers that come out
    alike; `times_as_fast`: one question alone, medians; None where too few were asked alone.
    """

    questions: int
    lost: float
    low: float
    high: float
    same: float
    times_as_fast: float | None

    @property
    def sentence(self) -> str:
        """In one line."""
        speed = f", {self.times_as_fast:.2f} times as fast" if self.times_as_fast else ""
        lost = f"score lost {self.lost:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.questions} questions"
        return f"in 8 bits: {lost}, {self.same:.0%} of the answers alike{speed}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ArmResult(Shown):
    """What a study found out about one arm; without `status == "done"` there is a `why` and no score.

    In files it carries its score's figures itself, and without a score only why. `score_floor`: the score's lower
    one-sided 95% bound; `latency_p95_high_ms`: the 95th percentile's upper one, which a limit is held against.
    `processor_share`: what other programs left of the processor while it was made or timed, the lesser of the two; in files
    `busy_machine` stands beside one that is too small for the timings to count.
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

    @property
    def busy_machine(self) -> bool:
        """Whether it was measured on a busy machine."""
        return is_busy(self.processor_share)

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in `study.json`; no word of what was not asked for (canaries, 8 bits)."""
        if self.status != "done":
            return {key: plain[key] for key in ("arm", "status", "why")}
        for name in ("why", "exposure", "eight_bit", "processor_share"):
            if plain[name] is None:
                del plain[name]
        busy = {"busy_machine": True} if self.busy_machine else {}
        return {**plain, **busy, **(plain["score"] or {})}

    @property
    def headline(self) -> str:
        """Its score in one line, or why there is none."""
        if self.score is None:
            return f"{self.arm}, {self.status.replace('_', ' ')}: {self.why}"
        one = self.score
        return f"{self.arm}: {one.value:.3f} [{one.low:.3f}, {one.high:.3f}] on {one.n:,} questions"

    def screen(self) -> Sequence[ShownRow]:
        """Nothing below that line; the rest stands in its attributes."""
        return []

    @property
    def row(self) -> ShownRow:
        """One arm among others."""
        if self.score is None:
            return {"arm": self.arm, "score": self.status.replace("_", " ")}
        cost = self.cost
        return {
            "arm": self.arm,
            "score": f"{self.score.value:.3f}",
            "95% interval": f"[{self.score.low:.3f}, {self.score.high:.3f}]",
            "passes": {True: "yes", False: "no", None: None}[self.passes],
            "p50 ms": self.latency_p50_ms,
            f"cost {cost.currency}" if cost else "cost": cost.total if cost else None,
        }

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """By its fields again, the score a record of its own."""
        plain = {key: value for key, value in plain.items() if key != "busy_machine"}
        return _with_score(plain) if "low" in plain else dict(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialArm:
    """What answering without a model comes to; `not_beaten_by` names the arms that are not shown to be better."""

    arm: str
    score: Estimate
    not_beaten_by: tuple[str, ...] = ()

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in `study.json`: its score's figures beside its name."""
        return {"arm": plain["arm"], **plain["score"], "not_beaten_by": plain["not_beaten_by"]}

    @classmethod
    def unshaped(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        """By its fields again, the score a record of its own."""
        return _with_score(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRecord:
    """`arm.json`: a finished arm of a study, with what its cost is worked out from. `digest` is of all that it depends on.

    `seconds`: what it took, all sittings together.
    `dev_scores`: of dev questions that it answered while it was made, by id. `latencies`: seconds of questions alone, of all passes.
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
    """The same answers decided with one thing changed: `what` changed, and the arm that the rule then shows, None for none."""

    what: str
    arm: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision: `shown` with an arm, or `not_shown` with what would settle it.

    `picked`: the score of the arm that scored highest, corrected for having been picked from several. `robustness`: the decision at other
    margins or targets, by other metrics, without one run and without the largest group.
    """

    status: Literal["shown", "not_shown"]
    arm: str | None
    sentence: str
    flips: tuple[Flip, ...] = ()
    needs: str | None = None
    picked: Estimate | None = None
    robustness: tuple[RobustnessCheck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedArm:
    """How the metric agrees with people on an arm's answers, and the score by people that follows.

    `sensitivity`: of answers that people call right, the share that the metric accepts; `specificity`: of those they call wrong, the
    share it rejects; None where there are none. `kappa`: Cohen's. `metric_score`: as the metric alone has it.
    """

    arm: str
    questions: int
    sensitivity: Estimate | None
    specificity: Estimate | None
    kappa: Estimate
    metric_score: Estimate
    corrected: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanAudit:
    """What people said of a study's answers. `answers`: how many they judged; `questions`: of which every arm's answer was judged.

    `why_not`: why the verdict does not use it; None where scores and differences are the corrected ones. `n_effective`: how many judged
    questions that weigh alike would be as sure, where questions are weighted by `data.mix`.
    """

    answers: int
    questions: int
    arms: tuple[AuditedArm, ...]
    why_not: str | None
    n_effective: float | None = None

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in files; no word of an effective number where all questions weigh the same."""
        if plain["n_effective"] is None:
            del plain["n_effective"]
        return plain


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """An arm on the newer half of the test questions, those from `since` on, and on the older half: newest minus earlier, with its 95% interval."""

    arm: str
    since: str
    newest: Estimate
    earlier: Estimate
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """How many questions the costs are for; `assumed` where the task file does not state it."""

    questions_per_month: float
    horizon_months: float
    assumed: bool

    @property
    def questions(self) -> float:
        """All of them, over the whole horizon."""
        return self.questions_per_month * self.horizon_months


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StudyResult(Shown):
    """A whole study: `study.json` is this record as JSON. `level`: that of its tests, after correction."""

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

    def shaped(self, plain: dict[str, Any]) -> dict[str, Any]:
        """As it stands in `study.json`; no word of a sample where all rows were used, of an audit that was not made, or of time where rows have none."""
        optional = ("sample", "audit", "over_time")
        return {key: value for key, value in plain.items() if key not in optional or value is not None}

    @property
    def ran(self) -> bool:
        """Whether any arm was measured; without one the study is not done."""
        return any(arm.status == "done" for arm in self.arms)

    @property
    def headline(self) -> str:
        """The verdict's sentence."""
        return self.verdict.sentence

    def screen(self) -> Sequence[ShownRow]:
        """One row for each arm; the rest stands in its attributes and in the report."""
        return [arm.row for arm in self.arms]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDifference:
    """An arm in two studies: its scores, and on the questions that both asked the mean of this minus the other, with its 95% interval.

    `questions`: how many those are; without any, and for macro-F1, which is no mean over questions, there is no difference.
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
    """Something that differs between two studies: a key of the task file, or what the studies rest on; empty where it is not stated."""

    what: str
    first: str
    second: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyComparison(Shown):
    """Two studies of one metric. `arms`: differences are the first minus the second, paired on the questions that both asked."""

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
        """How many things changed from the second study to the first."""
        count = len(self.changes)
        return f"{self.first} and {self.second}: {count} thing{'s' * (count != 1)} changed"

    def screen(self) -> list[ShownRow]:
        """One row for each arm."""
        return list(self.tables()["arms"])
