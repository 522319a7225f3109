"""Trials of contexts on dev: their scores, kept in a file; what they took; successive halving; a choice across folds.

Source of the halving: Jamieson and Talwalkar 2016 (arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, mean, stdev
from typing import Any

from trimtab.arms.contexts import Context, saved_context
from trimtab.base.files import append_own, read_own_lines
from trimtab.base.records import Example
from trimtab.base.results import ArmEffort, Stopped, Trial

FIRST_ROWS = 30  # dev questions of the first rung; each following rung doubles them
FOLDS = 5  # of dev, for a choice among many options that could owe its lead to chance


class ContextScores:
    """The dev scores of each context: computed once in a study and saved in a file."""

    def __init__(
        self, file: Path | None, ask: Callable[[Context, Sequence[Example]], tuple[Mapping[str, float], float]]
    ) -> None:
        self._file, self._ask = file, ask
        self._scores: dict[Context, dict[str, float]] = {}
        self._seconds: dict[Context, float] = {}
        for line in read_own_lines(file, "context", "scores", "seconds") if file else ():
            self._add(saved_context(line["context"]), line["scores"], line["seconds"])

    def _add(self, context: Context, scores: Mapping[str, float], seconds: float) -> None:
        self._scores.setdefault(context, {}).update(scores)
        self._seconds[context] = self._seconds.get(context, 0.0) + seconds

    def scores_of(self, context: Context, rows: Sequence[Example]) -> list[float]:
        """Return the score of each question. Missing ones are computed, which may change the others' calibration."""
        known = self._scores.get(context, {})
        new = [row for row in rows if row.id not in known]
        if new:
            scores, seconds = self._ask(context, new)
            self._add(context, scores, seconds)
            if self._file:
                append_own(self._file, {"context": asdict(context), "scores": dict(scores), "seconds": seconds})
        return [self._scores[context][row.id] for row in rows]

    def known(self, context: Context) -> Mapping[str, float]:
        """Return the known scores by question id."""
        return self._scores.get(context, {})

    def seconds(self, context: Context) -> float:
        """Return the seconds spent on this context."""
        return self._seconds.get(context, 0.0)

    def seconds_to_ask(self, context: Context, like: Context, rows: Sequence[Example]) -> float:
        """Return the predicted seconds for the missing scores of a context, if necessary from the seconds of `like`."""
        timed = context if self._scores.get(context) else like
        known = self._scores.get(timed, {})
        each = self._seconds[timed] / len(known) if known else 0.0
        return each * sum(row.id not in self._scores.get(context, {}) for row in rows)


class ContextTrials:
    """The contexts that an arm tried, charged with the seconds of their scores. `out_of_time`: one more did not fit."""

    def __init__(self, scores: ContextScores, seconds: float) -> None:
        self._scores, self._limit = scores, seconds
        self._contexts: dict[Context, None] = {}
        self._charged = 0.0
        self.out_of_time = False

    @property
    def spent(self) -> float:
        """Return the seconds of all trials, and what was charged besides."""
        return sum(map(self._scores.seconds, self._contexts)) + self._charged

    def charge(self, seconds: float) -> None:
        """Add seconds of work that is no score of a context on dev."""
        self._charged += seconds

    def has_time(self, seconds: float) -> bool:
        """True if so many seconds are left; otherwise `out_of_time` is set."""
        self.out_of_time |= self.spent + seconds > self._limit
        return not self.out_of_time

    def known(self, context: Context) -> Mapping[str, float]:
        """Return the known scores of a context by question id."""
        return self._scores.known(context)

    def seconds_a_question(self, context: Context) -> float:
        """Return the mean seconds of a dev question in a context that was tried."""
        return self._scores.seconds(context) / max(1, len(self.known(context)))

    def try_context(self, context: Context, like: Context, rows: Sequence[Example]) -> list[float] | None:
        """Return the score of each row; None if its predicted time, if necessary from that of `like`, is too long."""
        if self._contexts and not self.has_time(self._scores.seconds_to_ask(context, like, rows)):
            return None
        self._contexts[context] = None
        return self._scores.scores_of(context, rows)

    def effort(
        self, chosen: Context, trial: Callable[[Context, float], Mapping[str, Any]], *, improving: bool = False
    ) -> ArmEffort | None:
        """Return the record of the search, None without trials. `trial`: fields from a context and its mean score."""
        trials = []
        for context in self._contexts:
            known = self._scores.known(context)
            measured = {"dev_loss": None, "dev_metric": None, **trial(context, mean(known.values()))}
            seconds = self._scores.seconds(context)
            trials.append(Trial(rows=len(known), seconds=seconds, kept=context == chosen, **measured))
        stopped: Stopped = "budget" if self.out_of_time else "no trial was better"
        found = ArmEffort(seconds=self.spent, trials=tuple(trials), stopped=stopped, improving=improving)
        return found if trials else None


def successive_halving(
    tried: ContextTrials,
    rungs: Sequence[Sequence[Example]],
    now: Context,
    options: Sequence[Context],
    *,
    across_folds: bool = False,
) -> Context:
    """Return the best option; the present one stays to the end, so that none replaces it on a few questions.

    `across_folds`: the present one also stays unless `best_across_folds` finds a better one.
    """
    alive, best = list(options), now
    scores: dict[Context, list[float]] = {}
    compared: Sequence[Example] = ()
    for rows in rungs:
        found: dict[Context, list[float]] = {}
        for option in alive:
            answered = tried.try_context(option, now, rows)
            if answered is None:
                break
            found[option] = answered
        if len(found) < len(alive):
            break
        scores, compared = found, rows
        best = max(alive, key=lambda option: mean(found[option]))
        ranked = sorted(alive, key=lambda option: -mean(found[option]))
        kept = {*ranked[: max(1, len(alive) // 2)], now}
        alive = [option for option in alive if option in kept]
        if len(alive) == 1:
            break
    return best_across_folds(scores, compared, now) if across_folds and scores else best


def best_across_folds(scores: Mapping[Context, Sequence[float]], rows: Sequence[Example], former: Context) -> Context:
    """Return the option with the highest mean score if choosing by the mean pays on other questions, else the former.

    On each of FOLDS parts of the rows, with whole groups, the option that is best on the other parts is compared with
    the former one. Its mean gain must exceed one standard error of these paired differences. `scores`: of each option,
    the former one included, to every row.
    """
    units = list(dict.fromkeys(row.group or row.id for row in rows))
    part = {unit: number % FOLDS for number, unit in enumerate(units)}
    parts = [part[row.group or row.id] for row in rows]
    gains: list[float] = []
    for fold in sorted(set(parts)):
        inside = [number for number, own in enumerate(parts) if own == fold]
        outside = [number for number, own in enumerate(parts) if own != fold]
        best = _best_mean(scores, outside, former) if outside else former
        gains += [scores[best][number] - scores[former][number] for number in inside]
    pays = len(gains) > 1 and fmean(gains) > stdev(gains) / len(gains) ** 0.5
    return _best_mean(scores, range(len(rows)), former) if pays else former


def _best_mean(scores: Mapping[Context, Sequence[float]], places: Sequence[int], former: Context) -> Context:
    """Return the option with the highest mean score at some places; of equals the former one."""
    return max(scores, key=lambda option: (fmean(scores[option][place] for place in places), option == former))
