"""Search of learning rate and training length: successive halving on a ladder of rates; the winner and the defaults are
trained to the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from trimtab.arms.contexts import Context, PassageMix
from trimtab.arms.recipe import Recipe, is_open
from trimtab.arms.search.context_search import RATES, SearchSpace, TrialPlan
from trimtab.base.errors import DivergedError
from trimtab.base.grammar import DISTILL, JUDGED, PREFERENCES, REWARDED
from trimtab.base.records import Arm
from trimtab.base.results import ArmEffort, Stopped, Trial
from trimtab.training.loop import TrainResult
from trimtab.training.monitor import EvalRecord, loss_or_negated_metric, paired_error

STEP = 2.5  # factor between two learning rates of the ladder
LONGER, MOST_LONGER = 1.5, 6.0  # factor by which a run that still improves is extended, and the largest total factor
LOWER = 4  # number of rates, each a step lower, tried for a centre that does not diverge
# Mixes of passages in training prompts besides the default, in order of trial.
MIXES = ({"gold_missing": 0.3}, {"distractors": 0.5}, {"gold_missing": 0.0}, {"distractors": 0.0})
WIDER = 4  # factor on the default rank
LOOKS = 4  # dev evaluations in a run: the first two are rungs, and the rate decays before the last one


@dataclass(frozen=True, kw_only=True)
class TrainingSetting:
    """The searched settings of a stage. `rank`: None for methods without one. `mix`: for prompts with passages."""

    learning_rate: float
    epochs: float
    rank: int | None = None
    mix: PassageMix | None = None

    def run_key(self) -> TrainingSetting:
        """Return the part that identifies a run: not its length, which may be extended."""
        return replace(self, epochs=0.0)


# Trains up to this dev evaluation, None for the whole; resumes, and reports nothing after that evaluation.
Run = Callable[[TrainingSetting, int | None], TrainResult]


@dataclass(frozen=True, kw_only=True)
class OpenSettings:
    """The settings that the task file leaves to the search. `mix`: only if training prompts have passages."""

    learning_rate: bool
    epochs: bool
    rank: bool
    mix: bool = False


def rate_at(usual: TrainingSetting, step: int) -> TrainingSetting:
    """Return the setting with the rate of the ladder that is `step` steps above, or below, the usual one."""
    return replace(usual, learning_rate=usual.learning_rate * STEP**step)


def first_steps(count: int) -> list[int]:
    """Return the first `count` steps of the ladder in order of trial: 0, 1, -1, 2, and so on."""
    return [-(number // 2) if number % 2 == 0 else (number + 1) // 2 for number in range(count)]


def open_settings(arm: Arm, recipe: Recipe, number: int, context: Context) -> OpenSettings:
    """Return the open settings of a stage, by its index; the rank with the first, as all stages share it."""
    stage = recipe.stages[number].name
    return OpenSettings(
        learning_rate=is_open(arm, "learning_rate", stage),
        epochs=is_open(arm, "epochs", stage),
        rank=number == 0 and recipe.rank is not None and "rank" not in arm.settings,
        mix=context.passages > 0 and stage not in (DISTILL, *JUDGED, *REWARDED),
    )


def search_learning_rate(
    run: Run, centre: TrainingSetting, open_: OpenSettings, menu: SearchSpace, seconds: float
) -> tuple[TrainingSetting, TrainResult, ArmEffort]:
    """Train the winner of the ladder around `centre` to its end; the trials take at most `seconds` beyond one training.

    The ladder is extended by a step while the best rate is at an edge, one step in each direction. The best run and
    the next, if within one paired standard error, are evaluated once more. The winner is extended while its dev loss
    still falls by over one paired standard error. If it is not the centre, the centre is trained to its end too, and
    stays unless dev is better at the end by over one paired standard error: a high rate looks worse early than after
    its decay. Once the rates were tried, nothing else takes the time that this needs. A rate that diverges is out;
    if the centre diverges, the ladder is lowered. Raises DivergedError if no rate is left.
    """
    diverged = _diverged_from(run, centre, open_)
    ladder = _LearningRateSearch(run, centre, menu, seconds, diverged)
    if open_.learning_rate:
        ladder.try_rates()
    best = ladder.best()
    for other in ladder.others(best, rank=open_.rank):
        best = ladder.prefer(best, other(best))
    while True:
        try:
            chosen, result = ladder.or_usual(*ladder.finish(best, may_grow=open_.epochs), may_grow=open_.epochs)
            return chosen, result, ladder.effort(chosen)
        except DivergedError:  # it diverged late: the next best is trained instead
            ladder.mark_diverged(best)
            if not any(ladder.results.values()):
                raise
            best = ladder.best(final=False)


def _diverged_from(run: Run, usual: TrainingSetting, open_: OpenSettings) -> dict[TrainingSetting, float]:
    """Return the seconds of the settings that diverge, from the usual one down; the next lower rate does not.

    Raises DivergedError if the task file fixes one that diverges.
    """
    diverged: dict[TrainingSetting, float] = {}
    for step in range(LOWER):
        setting, began = rate_at(usual, -step), time.monotonic()
        try:
            run(setting, 1)
            return diverged
        except DivergedError:
            if not open_.learning_rate:
                raise
            diverged[setting] = time.monotonic() - began
    raise DivergedError(f"training diverges at every learning rate from {usual.learning_rate:g} down; look at the rows")


class _LearningRateSearch:
    """State of one search. Runs are stored by `run_key`; an extended run is the same run."""

    def __init__(
        self,
        run: Run,
        usual: TrainingSetting,
        menu: SearchSpace,
        seconds: float,
        diverged: Mapping[TrainingSetting, float],
    ) -> None:
        """`diverged`: as from `_diverged_from`; the ladder stands around the rate below."""
        self.run, self.usual, self.menu, self.limit = run, usual, menu, seconds
        self.lowered = len(diverged)  # steps from the usual rate down to the centre
        self.centre = rate_at(usual, -self.lowered)
        self.diverged = dict(diverged)  # seconds of diverged runs
        self.stopped: Stopped = "no trial was better"
        self.improving = False
        self.results: dict[TrainingSetting, TrainResult | None] = dict.fromkeys(diverged)
        self.longer: dict[TrainingSetting, float] = {}  # seconds of a run beyond one training as planned
        self._train_to(self.centre, 1)  # counted as training if it wins
        first = self.results[self.centre]
        self.each = first.seconds if first else math.inf  # seconds of a setting up to its first rung

    @property
    def spent(self) -> float:
        """Return the seconds of all runs beyond one training as planned."""
        lost = math.fsum(self.diverged.values())
        return sum(result.seconds for result in self.results.values() if result) + lost - self._planned

    @property
    def _planned(self) -> float:
        """Return the seconds of the longest run as planned, as far as it got."""
        taken = {setting: result.seconds for setting, result in self.results.items() if result}
        return max((seconds - self.longer.get(begun.run_key(), 0.0) for begun, seconds in taken.items()), default=0.0)

    def _has_time(self, seconds: float, *, beside: float = 0.0) -> bool:
        """True if `seconds` are left, besides the `beside` seconds of a more important step."""
        enough = self.spent + seconds + beside <= self.limit
        if not enough:
            self.stopped = "budget"
        return enough

    def _train_to(self, setting: TrainingSetting, look: int) -> None:
        began = time.monotonic()
        try:
            self.results[setting] = self.run(setting, look)
        except DivergedError:
            self.mark_diverged(setting, time.monotonic() - began)

    def mark_diverged(self, setting: TrainingSetting, seconds: float = 0.0) -> None:
        """Record that a run diverged, after `seconds` more than recorded."""
        former = self.results.get(setting)
        self.diverged[setting] = seconds + (former.seconds if former else 0.0)
        self.results[setting] = None

    @property
    def _usual_left(self) -> float:
        """Return the remaining seconds of training the default settings to their end."""
        begun = self.results[self.centre]
        return max(0.0, LOOKS * self.each - begun.seconds) if begun else 0.0

    def try_rates(self) -> None:
        """Try the ladder, and one step beyond the edge if the best rate is there."""
        for step in first_steps(2 * self.menu.rates + 1)[1:]:
            if not self._try_setting(self._rate(step)):
                self.improving = self.best(final=False) != self.centre
                return
        for step in (self.menu.rates, -self.menu.rates):
            if self.best(final=False) == self._rate(step):
                beyond = self._rate(step + (1 if step > 0 else -1))
                if not self._try_setting(beyond):
                    self.improving = True
                elif self.best(final=False) == beyond:
                    self.stopped, self.improving = "edge of the ladder", True

    def _rate(self, step: int) -> TrainingSetting:
        return rate_at(self.usual, step - self.lowered)

    def _try_setting(self, setting: TrainingSetting, *, beside: float = 0.0) -> bool:
        """Train a setting to its first rung, unless it is known to diverge. False if there is no time."""
        if setting in self.diverged:
            return True
        if not self._has_time(self.each, beside=beside):
            return False
        self._train_to(setting, 1)
        return True

    def others(self, best: TrainingSetting, *, rank: bool) -> list[Callable[[TrainingSetting], TrainingSetting]]:
        """Return the other variations at the best rate: a higher rank, other mixes of passages."""
        found: list[Callable[[TrainingSetting], TrainingSetting]] = []
        if best.mix is not None:
            found += [partial(_with_mix, shares=shares) for shares in mixes(self.menu)]
        if rank and self.menu.rates > 1 and best.rank is not None:
            found.append(lambda now: replace(now, rank=(now.rank or 0) * WIDER))
        return found

    def prefer(self, best: TrainingSetting, other: TrainingSetting) -> TrainingSetting:
        """Return the other setting if its dev loss at the first rung is lower by over one paired standard error."""
        if not self._try_setting(other, beside=self._usual_left):
            return best
        now, former = _reading(self.results[other], 1), _reading(self.results[best], 1)
        return other if now and former and _improves(former, now) else best

    def best(self, *, final: bool = True) -> TrainingSetting:
        """Return the setting with the lowest dev loss at the first rung; if `final`, close ones are evaluated again."""
        known = {setting: reading for setting, result in self.results.items() if (reading := _reading(result, 1))}
        ranked = sorted(known, key=lambda setting: loss_or_negated_metric(known[setting]))
        first, rivals = ranked[0], ranked[1:2]
        near = [rival for rival in rivals if not _improves(known[rival], known[first])]
        if not (final and near and self._has_time(self.each, beside=self._usual_left)):
            return first
        again: dict[TrainingSetting, EvalRecord] = {}
        for setting in (first, *near):
            self._train_to(setting, 2)
            reading = _reading(self.results[setting], 2)
            if reading is None:
                return first if setting != first else near[0]
            again[setting] = reading
        return min(again, key=lambda setting: loss_or_negated_metric(again[setting]))

    def finish(self, setting: TrainingSetting, *, may_grow: bool) -> tuple[TrainingSetting, TrainResult]:
        """Train the winner to its end; longer while it still improves before its rate decays."""
        begun, planned = setting, 0.0
        while True:
            result = self._keep(begun, self.run(setting, LOOKS - 1))
            planned = planned or result.seconds * LOOKS / (LOOKS - 1)
            self.longer[begun.run_key()] = max(0.0, result.seconds - planned)
            times = setting.epochs * LONGER / begun.epochs
            if result.finished or not may_grow or not _improves(*_last_two(result)):
                break
            if times > MOST_LONGER * (1 + 1e-9):
                self.stopped, self.improving = "edge of the ladder", True
                break
            more = planned * times - result.seconds - max(0.0, planned - self._planned)
            if not self._has_time(more, beside=0.0 if begun == self.centre else self._usual_left):
                self.improving = True
                break
            setting = replace(setting, epochs=setting.epochs * LONGER)
        result = self._keep(begun, self.run(setting, None))
        self.longer[begun.run_key()] = max(0.0, result.seconds - planned) if setting != begun else 0.0
        return setting, result

    def or_usual(
        self, found: TrainingSetting, result: TrainResult, *, may_grow: bool
    ) -> tuple[TrainingSetting, TrainResult]:
        """Return the found setting, or the default one if dev is not better at the end of the found one."""
        if (
            found.run_key() == self.centre.run_key()
            or self.results[self.centre] is None
            or not self._has_time(self._usual_left)
        ):
            return found, result
        ended, (self.stopped, self.improving) = (self.stopped, self.improving), ("no trial was better", False)
        try:
            usual, other = self.finish(self.centre, may_grow=may_grow)
            if not (other.best and result.best and _improves(other.best, result.best)):
                return usual, other
        except DivergedError:
            self.mark_diverged(self.centre)
        self.stopped, self.improving = ended
        return found, self.run(found, None)  # attaches its weights again

    def _keep(self, begun: TrainingSetting, result: TrainResult) -> TrainResult:
        self.results[begun] = result
        return result

    def effort(self, chosen: TrainingSetting) -> ArmEffort:
        """Return the record of the search; seconds beyond one training as planned."""
        return ArmEffort(
            seconds=self.spent,
            trials=tuple(self._trial(setting, chosen) for setting in self.results),
            stopped=self.stopped,
            improving=self.improving,
        )

    def _trial(self, setting: TrainingSetting, chosen: TrainingSetting) -> Trial:
        result = self.results[setting]
        first, last = _reading(result, 1), result.best if result and result.finished else None
        at_end = None if last is None else last.dev_metric if last.dev_loss is None else last.dev_loss
        kept = setting.run_key() == chosen.run_key()
        trained = result.epochs if result and result.finished else setting.epochs
        what = {**asdict(setting), "epochs": round(trained, 3)}
        what |= what.pop("mix") or {}
        return Trial(
            what={name: value for name, value in what.items() if value is not None},
            dev_loss=first.dev_loss if first else None,
            dev_metric=first.dev_metric if first else None,
            rows=len(first.rows) if first else 0,
            seconds=result.seconds if result else self.diverged.get(setting, 0.0),
            kept=kept,
            at_end=at_end,
        )


def planned_training(
    stage: str, open_: OpenSettings, menu: SearchSpace, whole: float, look: float
) -> tuple[TrialPlan, ...]:
    """Return the planned trials of a stage of `whole` seconds, and `look` for each of its dev evaluations."""
    named = {**PREFERENCES, **REWARDED, DISTILL: "a teacher's answers"}
    of_stage = f" of {named[stage]}" if stage in named else ""
    quarter, rates = whole / LOOKS + look, 2 * menu.rates + 2
    found: list[TrialPlan] = []
    if open_.learning_rate:
        found.append(TrialPlan(what=f"{RATES}{of_stage}", count=rates, seconds=rates * quarter))
    if open_.mix:
        shares = len(mixes(menu))
        found.append(TrialPlan(what="passages in training prompts", count=shares, seconds=shares * quarter))
    if open_.rank and menu.rates > 1:
        found.append(TrialPlan(what="a higher rank", count=1, seconds=quarter))
    if found:
        usual = f"training{of_stage} with the usual settings to the end"
        found.append(TrialPlan(what=usual, count=1, seconds=whole + LOOKS * look - quarter))
    if open_.epochs:
        longer = f"training{of_stage} for longer while dev improves"
        found.append(TrialPlan(what=longer, count=1, seconds=(LONGER - 1) * whole))
    return tuple(found)


def mixes(menu: SearchSpace) -> Sequence[Mapping[str, float]]:
    """Return the passage mixes that an effort level tries: half of them, or all."""
    return MIXES[: 2 * menu.rates]


def _with_mix(setting: TrainingSetting, shares: Mapping[str, float]) -> TrainingSetting:
    return replace(setting, mix=replace(setting.mix, **shares)) if setting.mix else setting


def _reading(result: TrainResult | None, look: int) -> EvalRecord | None:
    """Return the dev evaluation of a rung, the last one if the run has fewer."""
    return result.readings[min(look, len(result.readings)) - 1] if result and result.readings else None


def _last_two(result: TrainResult) -> tuple[EvalRecord, EvalRecord]:
    """Return the last dev evaluation and the one before it; twice the same if there is one."""
    return result.readings[-2:][0], result.readings[-1]


def _improves(former: EvalRecord, later: EvalRecord) -> bool:
    """True if dev is better in the second evaluation than in the first by over one paired standard error."""
    return loss_or_negated_metric(former) - loss_or_negated_metric(later) > paired_error(former, later)
