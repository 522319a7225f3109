"""Records of a refresh: the plan with its forecast, the trainings of a candidate, and the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.base.show import Shown
from trimtab.upkeep.data_changes import DataChanges
from trimtab.upkeep.gate import LEAST_OLD
from trimtab.upkeep.versions import GateRecord

# On new questions: for it the plan gives the chance to pass, unless production's score tells more.
SUPPOSED_GAIN = 0.1

RefreshOutcome = Literal["nothing new", "planned", "not worth it", "not passed", "candidate", "promoted"]
RefreshWay = Literal["weights", "index"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPlan:
    """A forecast of what a refresh takes, and of whether it can show anything.

    `way`: the arm is made anew from all rows (`weights`), or production's own answers from today's documents (`index`).
    `production_on_new`: the mean score of production on `asked` new rows that are not of the test; None where there
    are none. `most_gain`: how much better the candidate could be on new questions if it reached the score that
    production was measured with on the old ones, by the favourable ends of both intervals. `smallest_shown`: the
    smallest difference that the new test questions show with 80% power; None without such questions. `old_questions`:
    those of before that still hold; `outdated` ones are left out, as the documents hold their right answer no more.
    `chance`: of the gate passing a candidate that is better by `gain` on the new questions (of the index: as good) and
    as good on the old ones, by `margin`. `facts_gone`: sentences of the former documents that are stated no more.
    `seconds`: of making and measuring production's arm, as its study took; None where that study is not here, and for
    the index. `price`: the same in `currency`; None where the task file has no price of the machine.
    """

    production: int
    arm: str
    asked: int
    production_on_new: float | None
    most_gain: float | None
    new_questions: int
    smallest_shown: float | None
    seconds: float | None
    price: float | None
    currency: str
    old_questions: int = 0
    margin: float = 0.0
    chance: float | None = None
    way: RefreshWay = "weights"
    gain: float = SUPPOSED_GAIN
    outdated: int = 0
    facts_gone: int = 0

    @property
    def worth_it(self) -> bool:
        """True if the new test questions could show a gain that is possible; of the index, if enough questions hold."""
        if self.way == "index":
            return self.old_questions >= LEAST_OLD
        smallest, gain = self.smallest_shown, self.most_gain
        return smallest is not None and smallest < 1 and (gain is None or gain >= smallest)

    @property
    def sentence(self) -> str:
        """Return the plan in words."""
        return self._of_index if self.way == "index" else self._of_weights

    @property
    def _of_index(self) -> str:
        gone = f"{self.facts_gone:,} facts of the former documents are gone"
        said = f"The index alone is made anew, as {self.arm} reads the documents: {gone}."
        if self.outdated:
            said += f" {self.outdated:,} test questions rest on these and are left out."
        if not self.worth_it:
            return f"{said} Not worth it: {self.old_questions:,} questions still hold, and {LEAST_OLD} are needed."
        said += (
            f" {self.old_questions:,} questions still hold. A version that is as good on these is shown to be not "
            f"worse by {self.margin:g} with a chance of {self.chance or 0:.0%}."
        )
        if (self.chance or 0) < 0.5:
            said += " More questions or a wider target.margin help; what is not shown, you decide."
        return said

    @property
    def _of_weights(self) -> str:
        count = self.new_questions
        if self.smallest_shown is None:
            return (
                "Not worth it: no test question is new, so that nothing could show the candidate to be better. "
                "Add labelled questions on what changed."
            )
        if self.smallest_shown >= 1:
            return f"Not worth it: {count} new test questions show nothing, however great the difference. Add more."
        shown = f"{count} new test questions show a difference of {self.smallest_shown:.3f}"
        if self.most_gain is not None:
            score = f"production scores {self.production_on_new:.3f} on {self.asked} new rows"
            shown = f"{score}, so that at most {self.most_gain:.3f} can be gained; {shown}"
        if not self.worth_it:
            return f"Not worth it: {shown}. Wait for more questions, or refresh with --anyway."
        said = f"{shown[0].upper()}{shown[1:]}."
        if self.chance is not None:
            said += (
                f" A candidate that is better by {self.gain:.2g} on these and as good on the {self.old_questions:,} "
                f"old test questions (margin {self.margin:g}) passes with a chance of {self.chance:.0%}."
            )
        if self.outdated:
            said += f" {self.outdated:,} more test questions rest on facts that are gone, and are left out."
        if self.seconds is not None:
            price = f" ({self.currency} {self.price:.2f})" if self.price is not None else ""
            said += f" Making and measuring {self.arm} took {self.seconds / 60:.1f} min{price}."
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateTraining:
    """One training of the candidate's weights, and its mean score on dev questions; the choice between trainings
    rests on these alone.

    `way`: from the base model on all rows, or from production's weights on the new rows and as many old ones
    (replay). `source`: the ID of the study or the run that holds the weights.
    """

    way: Literal["from the base", "from production"]
    source: str
    dev_score: float
    dev_questions: int
    seconds: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RefreshResult(Shown):
    """The result of a refresh. `folder` keeps its record, `study` is the study that made the candidate, `candidate`
    its version: of the weights only one that passed, of the index also one of which nothing was shown.

    `outdated`: ids of old test questions whose right answer the documents hold no more; they were left out.
    """

    outcome: RefreshOutcome
    sentence: str
    changes: DataChanges
    plan: RefreshPlan | None = None
    folder: str | None = None
    study: str | None = None
    gate: GateRecord | None = None
    candidate: int | None = None
    outdated: tuple[str, ...] = ()
    trainings: tuple[CandidateTraining, ...] = ()

    @property
    def headline(self) -> str:
        """Return the outcome in a sentence."""
        return self.sentence
