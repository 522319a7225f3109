"""The ladder of learning rates: which rate wins, how long it is trained, and what that may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.arms.contexts import PassageMix
from trimtab.arms.search.context_search import SEARCH_SPACES
from trimtab.arms.search.lr_search import LONGER, LOOKS, STEP, OpenSettings, Run, TrainingSetting, search_learning_rate
from trimtab.base.config import Effort
from trimtab.base.errors import DivergedError
from trimtab.training.loop import TrainResult
from trimtab.training.monitor import EvalRecord, best_of

CENTRE = TrainingSetting(learning_rate=1e-3, epochs=4.0)
EVERYTHING = OpenSettings(learning_rate=True, epochs=True, rank=True)
STANDARD = SEARCH_SPACES["standard"]


def runs(loss: Callable[[TrainingSetting, float], float]) -> tuple[Run, list[tuple[float, float]]]:
    """Runs whose dev loss follows from setting and epochs, an epoch a second; and what each took, by rate and
    seconds."""
    taken: dict[TrainingSetting, float] = {}
    marks: dict[TrainingSetting, list[float]] = {}
    log: list[tuple[float, float]] = []

    def run(setting: TrainingSetting, look: int | None) -> TrainResult:
        begun = setting.run_key()
        until = setting.epochs * (look or LOOKS) / LOOKS
        known = marks.setdefault(begun, [])
        known += [
            mark
            for n in range(1, LOOKS + 1)
            if (mark := setting.epochs * n / LOOKS) <= until and mark > (known[-1] if known else 0)
        ]
        here = [mark for mark in known if mark <= until]
        if any(not math.isfinite(loss(setting, mark)) for mark in here):
            raise DivergedError("diverged")
        readings = tuple(
            EvalRecord(step=round(1000 * mark), train_loss=0.0, dev_loss=loss(setting, mark), dev_metric=None, rows=())
            for mark in here
        )
        taken[begun] = max(taken.get(begun, 0.0), until)
        log.append((setting.learning_rate, until))
        return TrainResult(
            finished=look is None,
            steps=round(1000 * until),
            epochs=until,
            planned=round(1000 * setting.epochs),
            seconds=until,
            tokens=1,
            best=best_of(readings),
            health="learning",
            readings=readings,
        )

    return run, log


def valley(best: float) -> Callable[[TrainingSetting, float], float]:
    """A loss that is lowest at a rate and falls quickly to where it stays."""
    return lambda setting, epochs: abs(math.log(setting.learning_rate / best)) + (3.0 if epochs < 1.5 else 2.0)


@given(st.integers(-1, 1))
def test_the_best_rate_of_the_ladder_is_trained_to_its_end(step: int) -> None:
    run, log = runs(valley(CENTRE.learning_rate * STEP**step))
    chosen, result, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen.learning_rate == pytest.approx(CENTRE.learning_rate * STEP**step)
    assert result.finished
    assert [trial.kept for trial in effort.trials].count(True) == 1
    assert effort.stopped == "no trial was better"
    assert not effort.improving
    losers = {rate: seconds for rate, seconds in log if rate not in (chosen.learning_rate, CENTRE.learning_rate)}
    assert all(seconds <= 2 * CENTRE.epochs / LOOKS for seconds in losers.values())  # two looks at most
    assert (CENTRE.learning_rate, CENTRE.epochs) in log  # the usual rate is trained to its end, too
    assert log[-1][0] == chosen.learning_rate  # whose weights are on


def test_the_usual_settings_stay_where_what_led_early_is_not_better_at_the_end() -> None:
    """A low rate leads at the first looks and stands still; the usual one is as good once it has fallen."""

    def loss(setting: TrainingSetting, epochs: float) -> float:
        low = setting.learning_rate < 5e-4
        return 1.0 if low else 1.5 if epochs < CENTRE.epochs and setting.learning_rate < 2e-3 else 0.999

    run, log = runs(lambda setting, epochs: loss(setting, epochs) if setting.learning_rate < 2e-3 else 9.0)
    chosen, result, effort = search_learning_rate(run, CENTRE, replace(EVERYTHING, epochs=False), STANDARD, 1e9)
    assert chosen == CENTRE
    assert result.finished
    assert log[-1] == (CENTRE.learning_rate, CENTRE.epochs)
    assert (effort.stopped, effort.improving) == ("no trial was better", False)
    assert [trial.what["learning_rate"] for trial in effort.trials if trial.kept] == [CENTRE.learning_rate]
    # without the time for a second training, what led early is kept
    short, _, cut = search_learning_rate(run, CENTRE, replace(EVERYTHING, epochs=False), STANDARD, 0.9 * CENTRE.epochs)
    assert short.learning_rate < CENTRE.learning_rate
    assert cut.stopped == "budget"


@pytest.mark.parametrize("spare", [0.0, 0.9, 1.9])
def test_nothing_takes_the_time_that_the_usual_settings_need_to_their_end(spare: float) -> None:
    """A low rate leads and goes on improving; mixes and more epochs of it must leave time for the usual one, which
    wins."""
    mixed = replace(CENTRE, mix=PassageMix())

    def loss(setting: TrainingSetting, epochs: float) -> float:
        high, low = setting.learning_rate > 2e-3, setting.learning_rate < 5e-4
        return 9.0 if high else 1.5 - epochs / 100 if low else 2.0 if epochs < CENTRE.epochs else 0.5

    run, log = runs(loss)
    rates, usual = 3, CENTRE.epochs - 1  # beyond one training: first looks, and from the first look to the end
    chosen, result, _ = search_learning_rate(run, mixed, EVERYTHING, STANDARD, rates + usual + spare)
    assert chosen.learning_rate == CENTRE.learning_rate
    assert result.finished
    assert (CENTRE.learning_rate, CENTRE.epochs) in log


@pytest.mark.parametrize("step", [3, -3])
def test_beyond_the_edge_is_one_step_and_it_is_told_that_the_best_may_lie_further(step: int) -> None:
    run, _ = runs(valley(CENTRE.learning_rate * STEP**step))
    chosen, _, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen.learning_rate == pytest.approx(CENTRE.learning_rate * STEP ** (2 if step > 0 else -2))
    assert (effort.stopped, effort.improving) == ("edge of the ladder", True)


def test_a_run_is_made_longer_while_it_improves_and_not_beyond() -> None:
    run, _ = runs(lambda setting, epochs: 1 / min(epochs, 7.0) + abs(math.log(setting.learning_rate / 1e-3)))
    chosen, result, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen.epochs == pytest.approx(CENTRE.epochs * LONGER**4)  # looks before the fall: 3, 4.5, 6.75, 10.1, 15.2
    assert result.finished
    assert next(trial for trial in effort.trials if trial.kept).what["epochs"] == pytest.approx(chosen.epochs, abs=1e-3)
    fixed, _, _ = search_learning_rate(
        runs(lambda s, epochs: 1 / epochs)[0], CENTRE, replace(EVERYTHING, epochs=False), STANDARD, 1e9
    )
    assert fixed.epochs == CENTRE.epochs


@given(st.floats(0, 20), st.integers(-3, 3))
def test_no_more_time_is_taken_than_there_is(seconds: float, step: int) -> None:
    run, log = runs(lambda setting, epochs: 1 / epochs + abs(math.log(setting.learning_rate / (1e-3 * STEP**step))))
    chosen, result, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, seconds)
    longest: dict[float, float] = {}
    for rate, until in log:
        longest[rate] = max(longest.get(rate, 0.0), until)
    assert sum(longest.values()) <= CENTRE.epochs + seconds + 1e-6
    assert effort.seconds <= seconds + 1e-6
    assert result.finished
    if effort.stopped == "budget" and seconds < CENTRE.epochs / LOOKS:
        assert chosen.learning_rate == CENTRE.learning_rate


def test_a_rate_that_diverges_is_out_and_a_centre_that_does_is_told() -> None:
    run, _ = runs(lambda setting, epochs: math.inf if setting.learning_rate > 2e-3 else 1.0 - setting.learning_rate)
    chosen, _, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen == CENTRE
    assert [trial.dev_loss for trial in effort.trials].count(None) == 1
    with pytest.raises(DivergedError, match="every learning rate from"):
        search_learning_rate(runs(lambda setting, epochs: math.inf)[0], CENTRE, EVERYTHING, STANDARD, 1e9)
    fixed = replace(EVERYTHING, learning_rate=False)
    with pytest.raises(DivergedError, match="diverged"):
        search_learning_rate(
            runs(lambda setting, epochs: math.inf if setting.learning_rate > 5e-4 else 1.0)[0],
            CENTRE,
            fixed,
            STANDARD,
            1e9,
        )


def test_where_the_centre_diverges_the_ladder_stands_lower() -> None:
    run, _ = runs(lambda setting, epochs: math.inf if setting.learning_rate > 2e-4 else 1.0 - setting.learning_rate)
    chosen, result, effort = search_learning_rate(run, CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen.learning_rate == pytest.approx(CENTRE.learning_rate / STEP**2)
    assert result.finished
    tried = [trial.what["learning_rate"] for trial in effort.trials if trial.dev_loss is None]
    assert CENTRE.learning_rate in tried, "what diverged was tried, too"


def test_a_run_that_diverges_is_paid_for() -> None:
    run, _ = runs(lambda setting, epochs: math.inf if setting.learning_rate > 2e-3 else 1.0 - setting.learning_rate)

    def slow(setting: TrainingSetting, look: int | None) -> TrainResult:
        if setting.learning_rate > 2e-3:
            time.sleep(0.05)
        return run(setting, look)

    _, _, effort = search_learning_rate(slow, CENTRE, EVERYTHING, STANDARD, 1e9)
    (lost,) = (trial for trial in effort.trials if trial.dev_loss is None)
    assert lost.seconds >= 0.05
    others = sum(trial.seconds for trial in effort.trials if trial is not lost)
    assert effort.seconds == pytest.approx(others + lost.seconds - CENTRE.epochs)


def test_trials_are_told_by_the_look_that_all_had_and_by_their_end() -> None:
    run, _ = runs(lambda setting, epochs: abs(math.log(setting.learning_rate / 1e-3)) + 1 / epochs)
    _, _, effort = search_learning_rate(run, CENTRE, replace(EVERYTHING, epochs=False), STANDARD, 1e9)
    firsts = {trial.what["learning_rate"]: trial.dev_loss for trial in effort.trials}
    assert firsts[CENTRE.learning_rate] == pytest.approx(1.0)
    assert [trial.at_end for trial in effort.trials if trial.kept] == [pytest.approx(1 / CENTRE.epochs)]
    assert all(trial.at_end is None for trial in effort.trials if not trial.kept)


def test_time_that_lacked_for_something_else_does_not_make_a_rate_unfinished() -> None:
    """A lower rate is the best of the ladder; that no other rank could be tried says nothing of rates."""
    centre = replace(CENTRE, rank=16)
    run, _ = runs(valley(CENTRE.learning_rate / STEP))
    limit = 6.5 * CENTRE.epochs / LOOKS
    _, _, effort = search_learning_rate(
        run, centre, replace(EVERYTHING, epochs=False), SEARCH_SPACES["thorough"], limit
    )
    assert not effort.improving


def test_a_winner_that_diverges_late_gives_way_to_the_next_best() -> None:
    def loss(setting: TrainingSetting, epochs: float) -> float:
        return math.inf if setting.learning_rate > 2e-3 and epochs > 2.5 else 1.0 - setting.learning_rate

    chosen, result, effort = search_learning_rate(runs(loss)[0], CENTRE, EVERYTHING, STANDARD, 1e9)
    assert chosen.learning_rate == CENTRE.learning_rate
    assert result.finished
    assert [trial.kept for trial in effort.trials].count(True) == 1


def test_a_wider_rank_is_tried_by_a_thorough_search_alone() -> None:
    def loss(setting: TrainingSetting, epochs: float) -> float:
        return valley(1e-3)(setting, epochs) - (0.5 if setting.rank == 64 else 0.0)

    centre = replace(CENTRE, rank=16)
    assert search_learning_rate(runs(loss)[0], centre, EVERYTHING, SEARCH_SPACES["thorough"], 1e9)[0].rank == 64
    assert search_learning_rate(runs(loss)[0], centre, EVERYTHING, STANDARD, 1e9)[0].rank == 16
    assert (
        search_learning_rate(runs(loss)[0], centre, replace(EVERYTHING, rank=False), SEARCH_SPACES["thorough"], 1e9)[
            0
        ].rank
        == 16
    )


@pytest.mark.parametrize(
    ("best", "effort", "found"),
    [
        (PassageMix(distractors=0.5), "standard", True),
        (PassageMix(gold_missing=0.3, distractors=0.5), "standard", True),
        (PassageMix(gold_missing=0.0), "standard", False),
        (PassageMix(gold_missing=0.0), "thorough", True),
    ],
)
def test_what_prompts_show_of_passages_is_kept_where_dev_shows_it_to_help(
    best: PassageMix, effort: Effort, found: bool
) -> None:
    def loss(setting: TrainingSetting, epochs: float) -> float:
        assert setting.mix is not None
        away = abs(setting.mix.gold_missing - best.gold_missing) + abs(setting.mix.distractors - best.distractors)
        return valley(1e-3)(setting, epochs) + away

    chosen, _, tried = search_learning_rate(
        runs(loss)[0], replace(CENTRE, mix=PassageMix()), EVERYTHING, SEARCH_SPACES[effort], 1e9
    )
    assert (chosen.mix == best) is found
    assert all({"gold_missing", "distractors"} <= trial.what.keys() for trial in tried.trials)
