"""How long a study will take, by what was foretold of its arms, and what is cut when that is too long."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trimtab.arms.made import Allowance
from trimtab.arms.recipe import evaluations
from trimtab.arms.search import TrialPlan
from trimtab.base.codec import read_record, write_record

PLANNING = 0.1  # share of the budget that planning may take
RESERVED = 0.05  # share of it that is kept for the verdict, the report, and what takes longer than foretold
LEAST_SHARE = 0.05  # of what its trials would take, for which an arm begins to search at all
MOST_SEEDS = 3  # of an arm that dev leaves among the best, where the task file states no number
EPOCH_CUTS = (2.0, 1.0, 0.5, 0.25)
SAMPLE_SHARES = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.01)  # of the rows, that are tried for a budget
LEAST_TESTS = 100  # test questions that a plan leaves at least


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Predicted seconds of one epoch of a stage, and how many there are; `once_seconds`: beside them, whatever their number.

    `look_seconds`: of one look at dev, 0 where it has none. `teacher_seconds`: of a teacher's answers, of which a shorter stage takes no fewer.
    """

    epoch_seconds: float
    epochs: float
    once_seconds: float = 0.0
    look_seconds: float = 0.0
    teacher_seconds: float = 0.0

    def seconds(self, most: float = math.inf) -> float:
        """Predicted seconds of at most so many epochs and their looks; of a part of one, so much less of what is spent once."""
        epochs = min(self.epochs, most)
        training = self.epoch_seconds * epochs + self.once_seconds * min(epochs, 1.0)
        return training + self.look_seconds * evaluations(epochs) + self.teacher_seconds

    def over(self, rows: float, epochs: float) -> StagePlan:
        """The stage over a share of its rows, so many epochs; a look at dev takes what it took."""
        once, teacher = self.once_seconds * rows, self.teacher_seconds * rows
        return replace(
            self, epoch_seconds=self.epoch_seconds * rows, epochs=epochs, once_seconds=once, teacher_seconds=teacher
        )


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """Predicted seconds of an arm: its stages of one seed, answers of one seed, and what it may try on dev.

    `curve_seconds`: of its learning curve, where one is asked for. `problem`: why nothing could be predicted; `timed`: whether its own steps were timed, or all is foretold from another arm's.
    """

    arm: str
    stages: tuple[StagePlan, ...] = ()
    answer_seconds: float = 0.0
    test_seconds: float = 0.0  # of those, what grows with the number of test questions
    trials: tuple[TrialPlan, ...] = ()
    curve_seconds: float = 0.0
    memory_mb: float | None = None
    problem: str | None = None
    timed: bool = True

    @staticmethod
    def unshaped(plain: Mapping[str, Any]) -> dict[str, Any]:
        """A plan of an earlier version is read without its looks, which stood beside the stages: what may be spent was decided with them."""
        return {name: value for name, value in plain.items() if name != "dev_seconds"}

    def asking(self, share: float) -> ArmPlan:
        """The arm with a share of the test questions."""
        less = self.test_seconds * (1 - share)
        return replace(self, answer_seconds=self.answer_seconds - less, test_seconds=self.test_seconds - less)

    def on_sample(self, share: float) -> ArmPlan:
        """The arm on a share of all rows; its search, which is on a part of dev anyway, stays."""
        stages = tuple(stage.over(share, stage.epochs) for stage in self.stages)
        return replace(self.asking(share), stages=stages, curve_seconds=self.curve_seconds * share)

    @property
    def search_seconds(self) -> float:
        """Predicted seconds of everything that it may try within the time that is the same for all arms."""
        return math.fsum(trial.seconds for trial in self.trials if not trial.beside)

    @property
    def beside_seconds(self) -> float:
        """Predicted seconds of what a run of an arm that searches does beside its search."""
        return math.fsum(trial.seconds for trial in self.trials if trial.beside)

    @property
    def most_search_seconds(self) -> float:
        """What it may take of that time at most: a training that dev asks for more of goes on for as long as there is time."""
        return math.inf if self.stages and self.search_seconds else self.search_seconds

    def seconds(self, allowance: Allowance, *, most_search: bool = False, trained: float = 1.0) -> float:
        """Predicted seconds with that allowance, with `most_search` at most; `trained`: of this share of its steps, where dev ended a stage."""
        most = math.inf if allowance.epochs is None else allowance.epochs
        training = trained * sum(stage.seconds(most) for stage in self.stages)
        searching = min(self.most_search_seconds if most_search else self.search_seconds, allowance.search_seconds)
        beside = self.beside_seconds if allowance.looks_at_dev else 0.0
        return allowance.seeds * (training + self.answer_seconds + beside) + searching + self.curve_seconds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms that fit, what each may spend, and what was cut to make them fit; `budget`: seconds that all may take.

    `more_seeds`: how many runs the arms get that dev leaves among the best, once that is decided.
    """

    arms: tuple[ArmPlan, ...]
    allowance: Allowance
    left_out: Mapping[str, str]
    cuts: tuple[str, ...]
    precision: str | None = None  # of the base model, decided before the first arm runs
    budget: float | None = None
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    test_rows: int | None = None  # as many test questions are asked, where not all

    @property
    def seconds(self) -> float:
        """Predicted seconds of all arms that will run."""
        return sum(arm.seconds(self.allowance) for arm in self.arms if arm.arm not in self.left_out)

    def is_whole(self, seeds: int) -> bool:
        """Whether every arm is trained and asked in full; how long it may search beside that is no matter."""
        return not self.left_out and self.allowance.epochs is None and self.allowance.seeds == seeds

    @property
    def runs_nothing(self) -> bool:
        """Whether no arm fits the budget."""
        return len(self.left_out) == len(self.arms)


def spendable(budget: float | None, planning: float = 0.0) -> float | None:
    """Seconds that a budget leaves for the arms beside so many of planning."""
    return None if budget is None else max(0.0, budget * (1 - RESERVED) - planning)


def fit(arms: Sequence[ArmPlan], budget: float | None, seeds: int) -> Plan:
    """Cut until the arms fit the budget: first what each may try on dev, then epochs, then seeds; then arms, the longest first.

    Every arm may try for the same time: as long as the longest list of trials takes, less where that does not fit. Test questions
    are never cut. Arms left out are told with the minutes they lack.
    """
    whole = max((arm.search_seconds for arm in arms), default=0.0)
    beside = any(arm.beside_seconds for arm in arms)
    allowance = Allowance(seeds=seeds, search_seconds=whole, weighs=beside)
    cuts: list[str] = []
    left_out: dict[str, str] = {}

    def total(trial: Allowance) -> float:
        return sum(arm.seconds(trial, most_search=True) for arm in arms)

    def is_over(seconds: float) -> bool:
        # a share that fills the budget is a sum that rounds
        return budget is not None and seconds > budget * (1 + 1e-9)

    if budget is not None and is_over(total(allowance)):  # the first for the type checker
        share = _share(arms, budget - total(replace(allowance, search_seconds=0.0)), whole)
        allowance = replace(allowance, search_seconds=share, weighs=beside and share > 0)
        if whole or beside:
            cuts.append(
                f"the searching of each arm on dev, to {share:.0f} of {whole:.0f} seconds"
                if share
                else f"all searching on dev{' and the weighing of labels' if beside else ''}, so that arms stand as they usually are"
            )
        most = max((stage.epochs for arm in arms for stage in arm.stages), default=0.0)
        for epochs in EPOCH_CUTS:
            if is_over(total(allowance)) and epochs < most:
                allowance = replace(allowance, epochs=epochs)
        if allowance.epochs is not None:
            cuts.append(f"at most {allowance.epochs:g} epoch{'s' if allowance.epochs > 1 else ''} of training")
        while is_over(total(allowance)) and allowance.seeds > 1:
            allowance = replace(allowance, seeds=allowance.seeds - 1)
        if allowance.seeds < seeds:
            cuts.append(f"{allowance.seeds} of {seeds} seeds")
        spent = total(allowance)
        for arm in sorted(arms, key=lambda arm: -arm.seconds(allowance, most_search=True)):
            if is_over(spent):
                left_out[arm.arm] = _lacking(f"the {_minutes(budget)} min that the budget leaves", spent - budget)
                spent -= arm.seconds(allowance, most_search=True)
    return Plan(arms=tuple(arms), allowance=allowance, left_out=left_out, cuts=tuple(cuts), budget=budget)


def with_fewer_tests(plan: Plan, seeds: int, tests: int) -> Plan:
    """The plan with as many of the `tests` test questions as let every arm fit, LEAST_TESTS at least; the same one where that helps none."""

    def of(rows: int) -> Plan:
        return fit([arm.asking(rows / tests) for arm in plan.arms], plan.budget, seeds)

    if not plan.left_out or tests <= LEAST_TESTS or len(of(LEAST_TESTS).left_out) >= len(plan.left_out):
        return plan
    left_out = len(of(LEAST_TESTS).left_out)
    rows = bisect_right(range(LEAST_TESTS, tests), left_out, key=lambda rows: len(of(rows).left_out)) + LEAST_TESTS - 1
    return replace(of(rows), test_rows=rows)


def fitting_sample(plan: Plan, seeds: int, rows: int) -> int | None:
    """How many of all `rows`, to two digits, let every arm be trained and asked in full; None where all do, or not even a hundredth."""
    if plan.is_whole(seeds):
        return None
    for share in SAMPLE_SHARES:
        if fit([arm.on_sample(share) for arm in plan.arms], plan.budget, seeds).is_whole(seeds):
            digit: int = 10 ** max(0, len(str(round(rows * share))) - 2)
            return round(rows * share) // digit * digit
    return None


def taken_in(plan: Plan, anew: Sequence[ArmPlan], spent: float) -> Plan:
    """The plan with those of the arms that were left out which, foretold `anew`, fit beside the `spent` seconds, the shortest first.

    They may spend what all arms may. Only what was timed is taken in, for nothing is left to make up for a wrong forecast.
    """
    arms, left_out = {arm.arm: arm for arm in plan.arms}, dict(plan.left_out)
    left = (plan.budget or 0.0) - spent
    for arm in sorted(anew, key=lambda arm: arm.seconds(plan.allowance, most_search=True)):
        if arm.problem or not arm.timed:
            continue
        arms[arm.arm], seconds = arm, arm.seconds(plan.allowance, most_search=True)
        if seconds <= left:
            left -= seconds
            del left_out[arm.arm]
        else:
            left_out[arm.arm] = _lacking(f"the {_minutes(left)} min that the other arms left", seconds - left)
    return replace(plan, arms=tuple(arms.values()), left_out=left_out)


def _lacking(what: str, seconds: float) -> str:
    """Why an arm is left out: what there is, and how many seconds it lacks."""
    return f"{what} lack about {_minutes(seconds)} min for it; raise study.budget in a new study"


def _share(arms: Sequence[ArmPlan], left: float, whole: float) -> float:
    """The most seconds that every arm may search for with `left` seconds in all; 0 where that is hardly any."""
    wanted = sorted(arm.most_search_seconds for arm in arms)
    share = 0.0
    for number, seconds in enumerate(wanted):
        share = max(0.0, left) / (len(wanted) - number)
        if share <= seconds:
            break
        left -= seconds
    return min(share, whole) if share >= LEAST_SHARE * whole else 0.0


def seeds_that_fit(plan: Plan, trained: Mapping[str, float], spent: float) -> int:
    """How many seeds, up to MOST_SEEDS, arms may have when all arms were made in `spent` seconds and each took its `trained` ones."""
    if plan.budget is None:
        return MOST_SEEDS
    answers = {arm.arm: arm.answer_seconds for arm in plan.arms if arm.arm not in plan.left_out}
    left = plan.budget - spent - sum(answers.values())
    each = sum(seconds + answers.get(arm, 0.0) for arm, seconds in trained.items())
    return next((seeds for seeds in range(MOST_SEEDS, 1, -1) if (seeds - 1) * each <= left), 1)


def what_would_fit(plan: Plan, planning: float = 0.0) -> tuple[str, str]:
    """Of a plan in which no arm fits: the cheapest arm with its minutes, and the budget that it takes beside `planning` seconds, as in `3m`."""
    cheapest = min(plan.arms, key=lambda arm: arm.seconds(plan.allowance))
    seconds = cheapest.seconds(plan.allowance)
    budget = max(seconds / (1 - RESERVED - PLANNING), (seconds + planning) / (1 - RESERVED))
    return f"the cheapest, {cheapest.arm}, takes about {_minutes(seconds)} min", f"{math.floor(budget / 60) + 1}m"


def _minutes(seconds: float) -> str:
    """Minutes to one digit below ten, never 0."""
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{max(0.1, seconds / 60):.1f}"


def save_plan(path: Path, plan: Plan) -> None:
    """Keep the plan, so that a resumed study goes on with the same one."""
    write_record(path, plan)


def load_plan(path: Path) -> Plan | None:
    """The plan of a study that was begun; None where there is none. Raises InputError for one that cannot be read."""
    return read_record(path, Plan) if path.is_file() else None
