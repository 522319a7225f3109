"""How long a study will take, by what was foretold of its arms, and what is cut when that is too long."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from trimtab.arms.artifacts import Allowance
from trimtab.arms.recipe import evaluations
from trimtab.arms.search.context_search import TrialPlan
from trimtab.base.codec import read_record, write_record

PLANNING = 0.1  # share of the budget that planning may take
RESERVED = 0.05  # share of it that is kept for the verdict, the report, and what takes longer than foretold
LEAST_SHARE = 0.05  # of what its trials would take, for which an arm begins to search at all
MOST_SEEDS = 3  # of an arm that dev leaves among the best, where the task file states no number
LEAST_EPOCHS = 0.25  # to which training is cut before an arm is left out
MORE = 1.25  # times the epochs, or the seconds of searching, that an arm had: for less it is not made again
LEAST_PREDICTED = 5.0  # seconds, of fewer of which no pace is read off
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

    def making(self, allowance: Allowance, *, most_search: bool = False, trained: float = 1.0) -> float:
        """Predicted seconds of searching and training with that allowance, with `most_search` at most; `trained`: of this share of its steps, where dev ended a stage."""
        most = math.inf if allowance.epochs is None else allowance.epochs
        training = trained * sum(stage.seconds(most) for stage in self.stages)
        searching = min(self.most_search_seconds if most_search else self.search_seconds, allowance.search_seconds)
        beside = self.beside_seconds if allowance.looks_at_dev else 0.0
        return allowance.seeds * (training + beside) + searching

    def seconds(self, allowance: Allowance, *, most_search: bool = False, trained: float = 1.0) -> float:
        """Predicted seconds of making the arm, of its learning curve and of its answers to the test."""
        made = self.making(allowance, most_search=most_search, trained=trained)
        return made + allowance.seeds * self.answer_seconds + self.curve_seconds


@dataclass(frozen=True, kw_only=True)
class TrainedStanding:
    """An arm that was trained within an allowance.

    `seconds`: what searching and training took; None if the arm failed. `cut`: True if more time would have changed it. `trained`: the
    share of its planned steps that were made, below 1 where dev ended a stage. `answer_seconds`: of its answers to the test questions;
    None before these.
    """

    allowance: Allowance
    seconds: float | None
    cut: bool
    trained: float = 1.0
    answer_seconds: float | None = None

    def gains(self, allowance: Allowance, whole: Allowance) -> bool:
        """True if the arm is worth training again within `allowance`; `whole` is the allowance in which nothing is cut."""
        former = self.allowance
        if not self.cut or former == allowance:
            return False
        enough = MORE * former.search_seconds
        longer = former.search_seconds < allowance.search_seconds
        searches = longer and (allowance.search_seconds >= enough or allowance.search_seconds == whole.search_seconds)
        begins = allowance.looks_at_dev and not former.looks_at_dev
        lasts = former.epochs is not None and (allowance.epochs is None or allowance.epochs >= MORE * former.epochs)
        return searches or begins or lasts or allowance.seeds > former.seeds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms that fit, what each may spend, and what was cut to make them fit; `budget`: seconds that all may take.

    `allowances`: what single arms were made with, where that is not `allowance`. `more_seeds`: how many runs the arms get that dev
    leaves among the best, once that is decided.
    """

    arms: tuple[ArmPlan, ...]
    allowance: Allowance
    left_out: Mapping[str, str]
    cuts: tuple[str, ...]
    precision: str | None = None  # of the base model, decided before the first arm runs
    budget: float | None = None
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    seeds: int = 1  # that were asked for
    test_rows: int | None = None  # as many test questions are asked, where not all
    fewer_tests: str = ""  # what asking fewer test questions costs, in words

    @property
    def whole(self) -> Allowance:
        """The allowance that cuts nothing: its search is as long as the longest list of trials."""
        search = max((arm.search_seconds for arm in self.arms), default=0.0)
        return Allowance(seeds=self.seeds, search_seconds=search, weighs=any(arm.beside_seconds for arm in self.arms))

    def allowance_of(self, arm: str) -> Allowance:
        """What an arm may spend."""
        return self.allowances.get(arm, self.allowance)

    @property
    def kept(self) -> list[ArmPlan]:
        """The arms that are not left out."""
        return [arm for arm in self.arms if arm.arm not in self.left_out]

    @property
    def order(self) -> list[str]:
        """Names of the arms in training order. If something was cut, the quickest arms come first: they show the pace."""
        if not self.cuts:
            return [arm.arm for arm in self.arms]
        return [arm.arm for arm in sorted(self.arms, key=lambda arm: (bool(arm.stages), arm.seconds(self.allowance)))]

    @property
    def seconds(self) -> float:
        """Predicted seconds of all arms that will run."""
        return sum(arm.seconds(self.allowance_of(arm.arm)) for arm in self.kept)

    @property
    def is_whole(self) -> bool:
        """True if every arm is trained and answers in full. Searches may be cut."""
        return not self.left_out and self.allowance.epochs is None and self.allowance.seeds == self.seeds

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
    plan = Plan(arms=tuple(arms), allowance=Allowance(), left_out={}, cuts=(), budget=budget, seeds=seeds)
    return replanned(replace(plan, allowance=plan.whole), {}, 0.0)


def with_fewer_tests(plan: Plan, tests: int) -> Plan:
    """Cut the `tests` test questions, to LEAST_TESTS at least, so that as many arms fit as that can make fit.

    Returns the same plan where fewer questions let no further arm fit.
    """

    def of(rows: int) -> Plan:
        return fit([arm.asking(rows / tests) for arm in plan.arms], plan.budget, plan.seeds)

    if not plan.left_out or tests <= LEAST_TESTS or len(of(LEAST_TESTS).left_out) >= len(plan.left_out):
        return plan
    left_out = len(of(LEAST_TESTS).left_out)
    rows = bisect_right(range(LEAST_TESTS, tests), left_out, key=lambda rows: len(of(rows).left_out)) + LEAST_TESTS - 1
    return replace(of(rows), precision=plan.precision, test_rows=rows)


def fitting_sample(plan: Plan, rows: int) -> int | None:
    """The largest sample of the `rows`, to two digits, with which every arm is trained and answers in full.

    None where no sample is needed, and where a hundredth of the rows is still too much.
    """
    if plan.is_whole:
        return None
    for share in SAMPLE_SHARES:
        if fit([arm.on_sample(share) for arm in plan.arms], plan.budget, plan.seeds).is_whole:
            digit: int = 10 ** max(0, len(str(round(rows * share))) - 2)
            return round(rows * share) // digit * digit
    return None


def replanned(plan: Plan, made: Mapping[str, TrainedStanding], spent: float) -> Plan:
    """Divide what `spent` seconds leave of the budget again, at the pace seen so far.

    The time goes to the arms that are not trained yet and to those of `made` that were cut and gain by it, all with one allowance. Where
    it does not suffice, the most expensive of the cut arms stay as they are. An arm that is not trained yet and does not fit with the
    least allowance is left out, the longest first.
    """
    if plan.budget is None:
        return plan
    left, pace, whole = plan.budget - spent, _pace(plan, made), plan.whole
    waiting = [arm for arm in plan.kept if arm.arm not in made and arm.arm not in plan.allowances]
    cut = [arm for arm in plan.kept if arm.arm in made and made[arm.arm].cut]

    def cost(arm: ArmPlan, allowance: Allowance) -> float:
        return _to_come(arm, allowance, made.get(arm.arm), pace(arm), whole)

    def total(arms: Sequence[ArmPlan], allowance: Allowance) -> float:
        return sum(cost(arm, allowance) for arm in arms)

    cut.sort(key=lambda arm: cost(arm, whole))
    while True:
        taking = [*waiting, *cut]
        as_it_is = sum(cost(arm, plan.allowance_of(arm.arm)) for arm in plan.kept if arm not in taking)
        allowance = _most(partial(total, taking), left - as_it_is, whole, taking)
        gaining = [arm.arm for arm in cut if made[arm.arm].gains(allowance, whole)]
        if gaining or not cut:
            break
        cut.pop()
    spending, left_out = as_it_is + total(taking, allowance), dict(plan.left_out)
    needed = dict[str, float]()  # by arms that are left out
    for arm in sorted(waiting, key=lambda arm: -cost(arm, allowance)):
        if _is_over(spending, left):
            needed[arm.arm] = cost(arm, allowance)
            spending -= needed[arm.arm]
    left_out |= {name: _too_long(seconds, left - spending) for name, seconds in needed.items()}
    if len(plan.left_out) < len(left_out) < len(plan.arms):  # the others may spend more then
        return replanned(replace(plan, left_out=left_out), made, spent)
    own = {name: one for name, one in plan.allowances.items() if name not in gaining}
    found = replace(
        plan, left_out=left_out, allowances=own, allowance=allowance if waiting or gaining else plan.allowance
    )
    return replace(found, cuts=cuts_of(found, made))


def _to_come(
    arm: ArmPlan, allowance: Allowance, standing: TrainedStanding | None, pace: float, whole: Allowance
) -> float:
    """Predicted seconds that an arm still takes within an allowance: all of them, or those of its answers if training it again gains nothing."""
    if standing is None:
        made = arm.making(allowance, most_search=True)
        return pace * made + allowance.seeds * arm.answer_seconds + arm.curve_seconds
    answers = arm.answer_seconds if standing.answer_seconds is None else standing.answer_seconds
    if not standing.gains(allowance, whole):
        return standing.allowance.seeds * answers + arm.curve_seconds if standing.answer_seconds is None else 0.0
    made = arm.making(allowance, most_search=True)
    if not arm.stages:  # what was asked of the base is kept
        made -= arm.making(standing.allowance)
    return pace * max(0.0, made) + allowance.seeds * answers + arm.curve_seconds


def _pace(plan: Plan, made: Mapping[str, TrainedStanding]) -> Callable[[ArmPlan], float]:
    """A function from an arm to its pace: seconds taken per second predicted, over the arms trained so far that are trained like it or not at all."""
    sums: dict[bool, list[float]] = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for arm in plan.arms:
        standing, of_kind = made.get(arm.arm), sums[bool(arm.stages)]
        if standing is not None and standing.seconds is not None:
            of_kind[0] += standing.seconds
            of_kind[1] += arm.making(standing.allowance, trained=standing.trained)

    def pace(arm: ArmPlan) -> float:
        taken, predicted = sums[bool(arm.stages)]
        return taken / predicted if predicted >= LEAST_PREDICTED else 1.0

    return pace


def _most(total: Callable[[Allowance], float], left: float, whole: Allowance, arms: Sequence[ArmPlan]) -> Allowance:
    """The largest allowance whose `total` fits into `left` seconds. Cuts the search first, then epochs, then seeds; the least one if none fits."""

    def fits(allowance: Allowance) -> bool:
        return not _is_over(total(allowance), left)

    if fits(whole):
        return whole
    least = LEAST_SHARE * whole.search_seconds
    if least and fits(replace(whole, search_seconds=least)):
        return replace(
            whole,
            search_seconds=_largest(
                lambda share: total(replace(whole, search_seconds=share)) <= left, least, whole.search_seconds
            ),
        )
    without = replace(whole, search_seconds=0.0, weighs=False)
    if fits(without):
        return without
    longest = max((stage.epochs for arm in arms for stage in arm.stages), default=0.0)
    longest = min(longest, math.inf if whole.epochs is None else whole.epochs)
    if longest <= LEAST_EPOCHS:
        return next((one for one in _fewer_seeds(without) if fits(one)), replace(without, seeds=1))
    fewest = replace(without, epochs=LEAST_EPOCHS)
    kept = next((one for one in _fewer_seeds(fewest) if fits(one)), replace(fewest, seeds=1))
    if not fits(kept):
        return kept
    epochs = _largest(lambda epochs: total(replace(kept, epochs=epochs)) <= left, LEAST_EPOCHS, longest)
    digits = (math.floor(100 * epochs + shift) / 100 for shift in (1e-6, 0.0))
    return next((one for one in (replace(kept, epochs=value) for value in digits) if fits(one)), kept)


def _fewer_seeds(allowance: Allowance) -> list[Allowance]:
    """The allowance with all of its seeds, then with one fewer each, down to one."""
    return [replace(allowance, seeds=seeds) for seeds in range(allowance.seeds, 0, -1)]


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value from `low`, which fits, to `high` that fits, by bisection."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _is_over(seconds: float, budget: float) -> bool:
    """Whether so many seconds are more than there are."""
    return seconds > budget * (1 + 1e-9)  # a share that fills the budget is a sum that rounds


def cuts_of(plan: Plan, made: Mapping[str, TrainedStanding]) -> tuple[str, ...]:
    """What the budget cuts of the arms that run, in words; with their names if it does not cut the same of all."""
    kinds: dict[str, dict[str, list[str]]] = {"search": {}, "epochs": {}, "seeds": {}}
    for arm in plan.kept:
        if arm.arm not in made or made[arm.arm].cut:
            for kind, text in _cuts(arm, plan.allowance_of(arm.arm), plan.whole):
                kinds[kind].setdefault(text, []).append(arm.arm)
    found = (
        text if len(told) == 1 else f"{text} ({', '.join(arms)})"
        for told in kinds.values()
        for text, arms in told.items()
    )
    return (*found, *([plan.fewer_tests] if plan.fewer_tests else ()))


def _cuts(arm: ArmPlan, allowance: Allowance, whole: Allowance) -> list[tuple[str, str]]:
    """What an allowance cuts of an arm: kind and words."""
    found = []
    share, scores = allowance.search_seconds, " and label scores not calibrated" * whole.weighs
    searches_less = share < min(arm.most_search_seconds, whole.search_seconds)
    if searches_less or (arm.beside_seconds and not allowance.looks_at_dev):
        some = f"each arm searches its settings for {share:.0f} of {whole.search_seconds:.0f} seconds"
        none = f"settings are not searched{scores}, so arms run with their defaults"
        found.append(("search", some if share else none))
    if allowance.epochs is not None and any(stage.epochs > allowance.epochs for stage in arm.stages):
        found.append(("epochs", f"at most {allowance.epochs:g} epoch{'s' if allowance.epochs > 1 else ''} of training"))
    if allowance.seeds < whole.seeds:
        found.append(("seeds", f"{allowance.seeds} of {whole.seeds} seeds"))
    return found


def to_come(plan: Plan, made: Mapping[str, TrainedStanding]) -> dict[str, float]:
    """Predicted seconds that each arm still takes at the pace so far, by name; for a trained arm those of its answers."""
    pace, found = _pace(plan, made), dict[str, float]()
    asked = [(arm, one) for arm in plan.arms if (one := made.get(arm.arm)) and one.answer_seconds and one.seconds]
    taken = sum((one.seconds or 0.0) + one.allowance.seeds * (one.answer_seconds or 0.0) for _, one in asked)
    predicted = sum(arm.seconds(one.allowance, trained=one.trained) for arm, one in asked)
    answering = taken / predicted if predicted >= LEAST_PREDICTED else 1.0
    for arm in plan.kept:
        allowance, standing = plan.allowance_of(arm.arm), made.get(arm.arm)
        if standing is None:
            found[arm.arm] = pace(arm) * arm.making(allowance)
        if standing is None or standing.answer_seconds is None:
            answers = allowance.seeds * arm.answer_seconds + arm.curve_seconds
            found[arm.arm] = found.get(arm.arm, 0.0) + answering * answers
    return found


def taken_in(plan: Plan, predicted: Sequence[ArmPlan], spent: float) -> Plan:
    """The plan with those of the arms that were left out which, foretold anew, fit beside the `spent` seconds, the shortest first.

    Each may spend what the other arms may, less where only that fits. Only what was timed is taken in, for nothing is left to make up for a wrong forecast.
    """
    arms, left_out, allowances = {arm.arm: arm for arm in plan.arms}, dict(plan.left_out), dict(plan.allowances)
    left = (plan.budget or 0.0) - spent
    for arm in sorted(predicted, key=lambda arm: arm.seconds(plan.allowance, most_search=True)):
        if arm.problem or not arm.timed:
            continue
        arms[arm.arm] = arm
        allowance = _most(partial(arm.seconds, most_search=True), left, plan.allowance, [arm])
        seconds = arm.seconds(allowance, most_search=True)
        if not _is_over(seconds, left):
            left -= seconds
            del left_out[arm.arm]
            allowances[arm.arm] = allowance
        else:
            left_out[arm.arm] = _too_long(seconds, left)
    return replace(plan, arms=tuple(arms.values()), left_out=left_out, allowances=allowances)


def _too_long(needed: float, left: float) -> str:
    """Why an arm is left out: the seconds that it needs at least, and those of the budget that the other arms leave."""
    need, have = _minutes(needed), _minutes(left)
    return f"it needs about {need} min and {have} min of the budget are left; raise study.budget in a new study"


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
