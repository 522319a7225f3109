"""Study plan: predicted time of the arms, and the cuts that fit them into the budget."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from trimtab.arms.artifacts import Allowance
from trimtab.arms.recipe import evaluations
from trimtab.arms.search.context_search import TrialPlan
from trimtab.base.codec import read_record_if_any
from trimtab.base.task import Task

PLANNING = 0.1  # largest share of the budget for planning
PROBING = 0.15  # share of the budget kept for probes, where any are asked for
RESERVED = 0.05  # share of the budget reserved for the verdict, the report, and wrong predictions
LEAST_SHARE = 0.05  # smallest share of its trials' time for which an arm searches at all
MOST_SEEDS = 3  # seeds of an arm that dev leaves among the best, if the task file states no number
LEAST_EPOCHS = 0.25  # smallest number of epochs before an arm is left out
GAINS_FROM = 1.25  # factor by which epochs or search seconds must grow for an arm to be trained again
LEAST_PREDICTED = 5.0  # smallest predicted seconds from which a pace is computed
SAMPLE_SHARES = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.01)  # of the rows, tried for a budget
LEAST_TESTS = 100  # smallest number of test questions
LEAST_COMPARED = 300  # smallest number for the sake of a second arm, where one alone fits with all questions


@dataclass(frozen=True, kw_only=True)
class JudgingCost:
    """What judging one answer takes: its judgements, the tokens sent and received, seconds of this machine, and the fee
    in the task's currency, None for an endpoint without a price. `sentences`: what checking the sentences of an answer
    with passages takes beside it, where the judge does.
    """

    judgements: float  # an expected number where sentences are checked
    prompt_tokens: float
    new_tokens: float
    seconds: float
    fee: float | None
    sentences: JudgingCost | None = None

    def budget_seconds(self, task: Task) -> float:
        """Return the seconds of the task's budget that it uses up, those that the fee buys included."""
        return self.seconds + task.seconds_of(self.fee or 0.0)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Predicted seconds of one epoch of a stage, and the number of epochs. `once_seconds`: whatever their number.

    `look_seconds`: seconds of one dev evaluation, 0 without any. `teacher_seconds`: seconds of a teacher's answers,
    which a shorter stage does not reduce.
    """

    epoch_seconds: float
    epochs: float
    once_seconds: float = 0.0
    look_seconds: float = 0.0
    teacher_seconds: float = 0.0

    def seconds(self, most: float = math.inf) -> float:
        """Return the predicted seconds of at most `most` epochs; of a part of one, a part of what is spent once."""
        epochs = min(self.epochs, most)
        training = self.epoch_seconds * epochs + self.once_seconds * min(epochs, 1.0)
        return training + self.look_seconds * evaluations(epochs) + self.teacher_seconds

    def with_rows(self, rows: float, epochs: float) -> StagePlan:
        """Return the stage over a share of its rows for `epochs` epochs; a dev evaluation takes the same time."""
        once, teacher = self.once_seconds * rows, self.teacher_seconds * rows
        return replace(
            self, epoch_seconds=self.epoch_seconds * rows, epochs=epochs, once_seconds=once, teacher_seconds=teacher
        )


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """Predicted seconds of an arm: its stages and answers for one seed, and its possible trials on dev.

    `curve_seconds`: of its learning curve, if requested. `problem`: why nothing could be predicted. `timed`: True if
    its own steps were timed, False if all was predicted from another arm's. `note`: says that training
    passes recompute layers to fit into memory.
    """

    arm: str
    stages: tuple[StagePlan, ...] = ()
    answer_seconds: float = 0.0
    test_seconds: float = 0.0  # the part of it that grows with the number of test questions
    trials: tuple[TrialPlan, ...] = ()
    curve_seconds: float = 0.0
    memory_mb: float | None = None
    problem: str | None = None
    timed: bool = True
    note: str | None = None

    def with_judging(self, seconds: float) -> ArmPlan:
        """Return the arm with so many more seconds for judging its test answers."""
        return replace(self, answer_seconds=self.answer_seconds + seconds, test_seconds=self.test_seconds + seconds)

    def with_test_share(self, share: float) -> ArmPlan:
        """Return the arm with a share of the test questions."""
        less = self.test_seconds * (1 - share)
        return replace(self, answer_seconds=self.answer_seconds - less, test_seconds=self.test_seconds - less)

    def with_row_share(self, share: float) -> ArmPlan:
        """Return the arm on a share of all rows; its search, which uses a part of dev anyway, does not change."""
        stages = tuple(stage.with_rows(share, stage.epochs) for stage in self.stages)
        return replace(self.with_test_share(share), stages=stages, curve_seconds=self.curve_seconds * share)

    @property
    def search_seconds(self) -> float:
        """Return the predicted seconds of all trials within the time that is equal for all arms."""
        return math.fsum(trial.seconds for trial in self.trials if not trial.beside)

    @property
    def beyond_search_seconds(self) -> float:
        """Return the predicted seconds that a run of a searching arm spends beside its search."""
        return math.fsum(trial.seconds for trial in self.trials if trial.beside)

    @property
    def max_search_seconds(self) -> float:
        """Return the largest search time that it can use: a training that dev lengthens goes on while there is time."""
        return math.inf if self.stages and self.search_seconds else self.search_seconds

    def making_seconds(self, allowance: Allowance, *, most_search: bool = False, trained: float = 1.0) -> float:
        """Return the predicted seconds of search, or its most, and training. `trained`: the share of steps made."""
        most = math.inf if allowance.epochs is None else allowance.epochs
        training = trained * sum(stage.seconds(most) for stage in self.stages)
        searching = min(self.max_search_seconds if most_search else self.search_seconds, allowance.search_seconds)
        beside = self.beyond_search_seconds if allowance.may_search else 0.0
        return allowance.seeds * (training + beside) + searching

    def seconds(self, allowance: Allowance, *, most_search: bool = False, trained: float = 1.0) -> float:
        """Return the predicted seconds of search, training, learning curve and test answers."""
        made = self.making_seconds(allowance, most_search=most_search, trained=trained)
        return made + allowance.seeds * self.answer_seconds + self.curve_seconds


@dataclass(frozen=True, kw_only=True)
class TrainedStanding:
    """The state of an arm that was trained within an allowance.

    `seconds`: of search and training; None if the arm failed. `cut`: True if more time would have changed it.
    `trained`: the share of its planned steps that were made, below 1 after early stopping. `answer_seconds`: of its
    answers to the test questions; None before these.
    """

    allowance: Allowance
    seconds: float | None
    cut: bool
    trained: float = 1.0
    answer_seconds: float | None = None

    def gains_from(self, allowance: Allowance, whole: Allowance) -> bool:
        """True if training again within `allowance` gains something; in the allowance `whole` nothing is cut."""
        former = self.allowance
        if not self.cut or former == allowance:
            return False
        enough = GAINS_FROM * former.search_seconds
        longer = former.search_seconds < allowance.search_seconds
        searches = longer and (allowance.search_seconds >= enough or allowance.search_seconds == whole.search_seconds)
        begins = allowance.may_search and not former.may_search
        lasts = former.epochs is not None and (
            allowance.epochs is None or allowance.epochs >= GAINS_FROM * former.epochs
        )
        return searches or begins or lasts or allowance.seeds > former.seeds


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms that fit, their allowance, and what was cut. `budget`: seconds for all arms.

    `allowances`: of single arms, where different from `allowance`. `more_seeds`: the number of runs of the arms that
    dev leaves among the best, once decided. `planning_seconds`: of making it and of the baselines, which the budget
    includes. `judging`: what judging an answer takes, where a judge does. `reserved`: the share of the budget that arms
    do not get.
    """

    arms: tuple[ArmPlan, ...]
    allowance: Allowance
    left_out: Mapping[str, str]
    cuts: tuple[str, ...]
    precision: str | None = None  # precision of the base model, decided before the first arm runs
    budget: float | None = None
    more_seeds: Mapping[str, int] = field(default_factory=dict)
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    seeds: int = 1  # requested seeds
    test_rows: int | None = None  # number of test questions, if not all
    fewer_tests: str = ""  # the cost of fewer test questions, in words
    planning_seconds: float = 0.0
    judging: JudgingCost | None = None
    reserved: float = RESERVED

    @property
    def full_allowance(self) -> Allowance:
        """Return the allowance that cuts nothing: its search is as long as the longest list of trials."""
        search = max((arm.search_seconds for arm in self.arms), default=0.0)
        return Allowance(
            seeds=self.seeds, search_seconds=search, weighs=any(arm.beyond_search_seconds for arm in self.arms)
        )

    def allowance_of(self, arm: str) -> Allowance:
        """Return the allowance of an arm."""
        return self.allowances.get(arm, self.allowance)

    @property
    def included(self) -> list[ArmPlan]:
        """Return the arms that are not left out."""
        return [arm for arm in self.arms if arm.arm not in self.left_out]

    @property
    def order(self) -> list[str]:
        """Return the names of the arms in training order; after cuts the quickest first, as they show the pace."""
        if not self.cuts:
            return [arm.arm for arm in self.arms]
        return [arm.arm for arm in sorted(self.arms, key=lambda arm: (bool(arm.stages), arm.seconds(self.allowance)))]

    @property
    def seconds(self) -> float:
        """Return the predicted seconds of all arms that will run."""
        return sum(arm.seconds(self.allowance_of(arm.arm)) for arm in self.included)

    @property
    def is_complete(self) -> bool:
        """True if every arm is trained and answers in full. Searches may be cut."""
        return not self.left_out and self.allowance.epochs is None and self.allowance.seeds == self.seeds

    @property
    def is_empty(self) -> bool:
        """True if no arm fits the budget."""
        return len(self.left_out) == len(self.arms)


def spendable(budget: float | None, planning: float = 0.0, reserved: float = RESERVED) -> float | None:
    """Return the seconds of a budget for the arms, after `planning` seconds of planning and of the baselines and a
    `reserved` share; None without a budget."""
    return None if budget is None else max(0.0, budget * (1 - reserved) - planning)


def fit(arms: Sequence[ArmPlan], budget: float | None, seeds: int) -> Plan:
    """Return a plan that fits the budget: cuts the search, then epochs, then seeds, then arms, the longest first.

    All arms get the same search time: that of the longest list of trials, less if it does not fit. Test questions
    are never cut. Arms left out are listed with the minutes they lack.
    """
    plan = Plan(arms=tuple(arms), allowance=Allowance(), left_out={}, cuts=(), budget=budget, seeds=seeds)
    return replan(replace(plan, allowance=plan.full_allowance), {}, 0.0)


def with_fewer_tests(plan: Plan, tests: int, *, asked_for: bool = True) -> Plan:
    """Return the plan with as few test questions as let the most arms fit; the same plan if fewer let no further one
    fit.

    At least LEAST_TESTS; LEAST_COMPARED if an arm fits already and the task file does not ask for fewer (`asked_for`).
    """
    least = LEAST_TESTS if asked_for or plan.is_empty else LEAST_COMPARED

    def of(rows: int) -> Plan:
        return fit([arm.with_test_share(rows / tests) for arm in plan.arms], plan.budget, plan.seeds)

    if not plan.left_out or tests <= least or len(of(least).left_out) >= len(plan.left_out):
        return plan
    left_out = len(of(least).left_out)
    rows = bisect_right(range(least, tests), left_out, key=lambda rows: len(of(rows).left_out)) + least - 1
    return replace(
        of(rows),
        precision=plan.precision,
        planning_seconds=plan.planning_seconds,
        judging=plan.judging,
        test_rows=rows,
    )


def largest_fitting_sample(plan: Plan, rows: int) -> int | None:
    """Return the largest sample of the `rows` rows, to two digits, on which every arm is trained and answers in full.

    None if no sample is needed, or if a hundredth of the rows is still too much.
    """
    if plan.is_complete:
        return None
    for share in SAMPLE_SHARES:
        if fit([arm.with_row_share(share) for arm in plan.arms], plan.budget, plan.seeds).is_complete:
            digit: int = 10 ** max(0, len(str(round(rows * share))) - 2)
            return round(rows * share) // digit * digit
    return None


def replan(plan: Plan, standings: Mapping[str, TrainedStanding], spent: float) -> Plan:
    """Return the plan for the rest of the budget after `spent` seconds, at the pace seen so far.

    The time goes to the arms that are not trained yet, and to those of `standings` that were cut and would gain, all
    with one allowance. If it does not suffice, the most expensive of the cut arms stay as they are. An arm that is
    not trained yet and does not fit with the smallest allowance is left out, the longest first.
    """
    if plan.budget is None:
        return plan
    left, pace, whole = plan.budget - spent, _pace(plan, standings), plan.full_allowance
    waiting = [arm for arm in plan.included if arm.arm not in standings and arm.arm not in plan.allowances]
    cut = [arm for arm in plan.included if arm.arm in standings and standings[arm.arm].cut]

    def cost(arm: ArmPlan, allowance: Allowance) -> float:
        return _remaining_seconds_of(arm, allowance, standings.get(arm.arm), pace(arm), whole)

    def total(arms: Sequence[ArmPlan], allowance: Allowance) -> float:
        return sum(cost(arm, allowance) for arm in arms)

    cut.sort(key=lambda arm: cost(arm, whole))
    while True:
        taking = [*waiting, *cut]
        as_it_is = sum(cost(arm, plan.allowance_of(arm.arm)) for arm in plan.included if arm not in taking)
        allowance = _largest_allowance(partial(total, taking), left - as_it_is, whole, taking)
        gaining = [arm.arm for arm in cut if standings[arm.arm].gains_from(allowance, whole)]
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
        return replan(replace(plan, left_out=left_out), standings, spent)
    own = {name: one for name, one in plan.allowances.items() if name not in gaining}
    found = replace(
        plan, left_out=left_out, allowances=own, allowance=allowance if waiting or gaining else plan.allowance
    )
    return replace(found, cuts=describe_cuts(found, standings))


def _remaining_seconds_of(
    arm: ArmPlan, allowance: Allowance, standing: TrainedStanding | None, pace: float, whole: Allowance
) -> float:
    """Return the predicted seconds that an arm still takes; of its answers alone if retraining gains nothing."""
    if standing is None:
        made = arm.making_seconds(allowance, most_search=True)
        return pace * made + allowance.seeds * arm.answer_seconds + arm.curve_seconds
    answers = arm.answer_seconds if standing.answer_seconds is None else standing.answer_seconds
    if not standing.gains_from(allowance, whole):
        return standing.allowance.seeds * answers + arm.curve_seconds if standing.answer_seconds is None else 0.0
    made = arm.making_seconds(allowance, most_search=True)
    if not arm.stages:  # the base model's dev answers are stored
        made -= arm.making_seconds(standing.allowance)
    return pace * max(0.0, made) + allowance.seeds * answers + arm.curve_seconds


def _pace(plan: Plan, standings: Mapping[str, TrainedStanding]) -> Callable[[ArmPlan], float]:
    """Return a function from an arm to its pace: seconds taken per second predicted, over arms that are made alike."""
    sums: dict[bool, list[float]] = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for arm in plan.arms:
        standing, of_kind = standings.get(arm.arm), sums[bool(arm.stages)]
        if standing is not None and standing.seconds is not None:
            of_kind[0] += standing.seconds
            of_kind[1] += arm.making_seconds(standing.allowance, trained=standing.trained)

    def pace(arm: ArmPlan) -> float:
        taken, predicted = sums[bool(arm.stages)]
        return taken / predicted if predicted >= LEAST_PREDICTED else 1.0

    return pace


def _largest_allowance(
    total: Callable[[Allowance], float], left: float, whole: Allowance, arms: Sequence[ArmPlan]
) -> Allowance:
    """Return the largest allowance that fits, cutting search, then epochs, then seeds; the smallest if none does."""

    def fits(allowance: Allowance) -> bool:
        return not _is_over(total(allowance), left)

    if fits(whole):
        return whole
    least = LEAST_SHARE * whole.search_seconds
    if least and fits(replace(whole, search_seconds=least)):
        seconds = _largest(lambda most: total(replace(whole, search_seconds=most)) <= left, least, whole.search_seconds)
        return replace(whole, search_seconds=seconds)
    without = replace(whole, search_seconds=0.0, weighs=False)
    if fits(without):
        return without
    longest = max((stage.epochs for arm in arms for stage in arm.stages), default=0.0)
    longest = min(longest, math.inf if whole.epochs is None else whole.epochs)
    if longest <= LEAST_EPOCHS:
        return next((allowance for allowance in _fewer_seeds(without) if fits(allowance)), replace(without, seeds=1))
    fewest = replace(without, epochs=LEAST_EPOCHS)
    kept = next((allowance for allowance in _fewer_seeds(fewest) if fits(allowance)), replace(fewest, seeds=1))
    if not fits(kept):
        return kept
    epochs = _largest(lambda epochs: total(replace(kept, epochs=epochs)) <= left, LEAST_EPOCHS, longest)
    digits = (math.floor(100 * epochs + shift) / 100 for shift in (1e-6, 0.0))
    return next((allowance for allowance in (replace(kept, epochs=value) for value in digits) if fits(allowance)), kept)


def _fewer_seeds(allowance: Allowance) -> list[Allowance]:
    """Return the allowance with all of its seeds, then with one fewer each, down to one."""
    return [replace(allowance, seeds=seeds) for seeds in range(allowance.seeds, 0, -1)]


def _largest(fits: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest value in [`low`, `high`] that fits, by bisection; `low` fits."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _is_over(seconds: float, budget: float) -> bool:
    """True if `seconds` exceed the budget."""
    return seconds > budget * (1 + 1e-9)  # a share that fills the budget is a sum that rounds


def describe_cuts(plan: Plan, standings: Mapping[str, TrainedStanding]) -> tuple[str, ...]:
    """Return the budget's cuts of the arms that run, in words; with the arms' names if the cuts differ between arms."""
    kinds: dict[str, dict[str, list[str]]] = {"search": {}, "epochs": {}, "seeds": {}}
    for arm in plan.included:
        if arm.arm not in standings or standings[arm.arm].cut:
            for kind, text in _cuts(arm, plan.allowance_of(arm.arm), plan.full_allowance):
                kinds[kind].setdefault(text, []).append(arm.arm)
    found = (
        text if len(arms_of_cut) == 1 else f"{text} ({', '.join(arms)})"
        for arms_of_cut in kinds.values()
        for text, arms in arms_of_cut.items()
    )
    return (*found, *([plan.fewer_tests] if plan.fewer_tests else ()))


def _cuts(arm: ArmPlan, allowance: Allowance, whole: Allowance) -> list[tuple[str, str]]:
    """Return the cuts of an arm's allowance: kind and words."""
    found = []
    share, scores = allowance.search_seconds, " and label scores not calibrated" * whole.weighs
    searches_less = share < min(arm.max_search_seconds, whole.search_seconds)
    if searches_less or (arm.beyond_search_seconds and not allowance.may_search):
        some = f"each arm searches its settings for {share:.0f} of {whole.search_seconds:.0f} seconds"
        none = f"settings are not searched{scores}, so arms run with their defaults"
        found.append(("search", some if share else none))
    if allowance.epochs is not None and any(stage.epochs > allowance.epochs for stage in arm.stages):
        found.append(("epochs", f"at most {allowance.epochs:g} epoch{'s' if allowance.epochs > 1 else ''} of training"))
    if allowance.seeds < whole.seeds:
        found.append(("seeds", f"{allowance.seeds} of {whole.seeds} seeds"))
    return found


def remaining_seconds(plan: Plan, standings: Mapping[str, TrainedStanding]) -> dict[str, float]:
    """Return the predicted seconds that each arm still takes at the pace so far, by name."""
    pace, found = _pace(plan, standings), dict[str, float]()
    asked = [
        (arm, standing)
        for arm in plan.arms
        if (standing := standings.get(arm.arm)) and standing.answer_seconds and standing.seconds
    ]
    taken = sum(
        (standing.seconds or 0.0) + standing.allowance.seeds * (standing.answer_seconds or 0.0) for _, standing in asked
    )
    predicted = sum(arm.seconds(standing.allowance, trained=standing.trained) for arm, standing in asked)
    answering = taken / predicted if predicted >= LEAST_PREDICTED else 1.0
    for arm in plan.included:
        allowance, standing = plan.allowance_of(arm.arm), standings.get(arm.arm)
        if standing is None:
            found[arm.arm] = pace(arm) * arm.making_seconds(allowance)
        if standing is None or standing.answer_seconds is None:
            answers = allowance.seeds * arm.answer_seconds + arm.curve_seconds
            found[arm.arm] = found.get(arm.arm, 0.0) + answering * answers
    return found


def with_readmitted(plan: Plan, predicted: Sequence[ArmPlan], spent: float) -> Plan:
    """Return the plan with the left-out arms that, by new predictions, fit beside the `spent` seconds.

    Each gets the allowance of the other arms, or less if only that fits. Only timed arms are readmitted, for nothing
    is left to make up for a wrong prediction.
    """
    arms, left_out, allowances = {arm.arm: arm for arm in plan.arms}, dict(plan.left_out), dict(plan.allowances)
    left = (plan.budget or 0.0) - spent
    for arm in sorted(predicted, key=lambda arm: arm.seconds(plan.allowance, most_search=True)):
        if arm.problem or not arm.timed:
            continue
        arms[arm.arm] = arm
        allowance = _largest_allowance(partial(arm.seconds, most_search=True), left, plan.allowance, [arm])
        seconds = arm.seconds(allowance, most_search=True)
        if not _is_over(seconds, left):
            left -= seconds
            del left_out[arm.arm]
            allowances[arm.arm] = allowance
        else:
            left_out[arm.arm] = _too_long(seconds, left)
    return replace(plan, arms=tuple(arms.values()), left_out=left_out, allowances=allowances)


def _too_long(needed: float, left: float) -> str:
    """Return why an arm is left out: the seconds that it needs, and those that the other arms leave."""
    need, have = _minutes(needed), _minutes(left, math.floor)
    return f"it needs about {need} min and {have} min of the budget are left; raise study.budget in a new study"


def seeds_that_fit(plan: Plan, trained: Mapping[str, float], spent: float) -> int:
    """Return the number of seeds, up to MOST_SEEDS, that fit, with the `trained` seconds of a seed by arm."""
    if plan.budget is None:
        return MOST_SEEDS
    answers = {arm.arm: arm.answer_seconds for arm in plan.arms if arm.arm not in plan.left_out}
    left = plan.budget - spent - sum(answers.values())
    each = sum(seconds + answers.get(arm, 0.0) for arm, seconds in trained.items())
    return next((seeds for seeds in range(MOST_SEEDS, 1, -1) if (seeds - 1) * each <= left), 1)


def cheapest_fit(plan: Plan, tests: int | None = None) -> tuple[str, str]:
    """Return, where no arm fits, the cheapest one with its minutes beside those that are left for arms, and the budget
    that it needs, as in `3m`. `tests`: the number of test questions, if fewer may be asked; it is told for
    LEAST_TESTS."""
    share = min(1.0, LEAST_TESTS / tests) if tests else 1.0
    cheapest = min((arm.with_test_share(share) for arm in plan.arms), key=lambda arm: arm.seconds(plan.allowance))
    seconds = cheapest.seconds(plan.allowance)
    budget = max(seconds / (1 - plan.reserved - PLANNING), (seconds + plan.planning_seconds) / (1 - plan.reserved))
    left = f"planning and the verdict leave {_minutes(plan.budget or 0.0, math.floor)} min of it"
    takes = f"the cheapest, {cheapest.arm}, takes about {_minutes(seconds)} min"
    takes += f" for {LEAST_TESTS} test questions" * (share < 1)
    return f"{left}, and {takes}", f"{math.floor(budget / 60) + 1}m"


def _minutes(seconds: float, whole: Callable[[float], int] = math.ceil) -> str:
    """Return minutes with one digit below ten, rounded up, so that what is needed is never told as what is left."""
    tenths = whole(round(seconds / 6, 6))
    return f"{whole(round(seconds / 60, 6))}" if seconds >= 600 else f"{tenths / 10:.1f}"


def load_plan(path: Path) -> Plan | None:
    """Return the plan of a study that was begun; None without one. Raises InputError if it cannot be read."""
    return read_record_if_any(path, Plan)
