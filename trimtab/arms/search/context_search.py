"""Search of an arm's context on dev with the base model, by successive halving over dev questions.

Source of the halving: Jamieson and Talwalkar 2016 (arXiv 1502.07943).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from trimtab.arms.contexts import Context, context_for, has_fixed_shots
from trimtab.arms.search.instructions import instruction_variants
from trimtab.arms.session import Session
from trimtab.base.config import Effort
from trimtab.base.files import append_own, read_own_lines
from trimtab.base.grammar import PARTS, SENTENCE, is_trained, method_of
from trimtab.base.records import Arm, Example
from trimtab.base.results import OWN_INSTRUCTION, ArmEffort, Stopped, Trial

FIRST_ROWS = 30  # dev questions of the first rung; each following rung doubles them
SEARCHES = "search.jsonl"
PASSAGE_WORDS = (SENTENCE, 60, 240)  # besides the default size
VECTOR_WEIGHTS = (0.25, 0.5, 0.75)  # that are tried besides the task's own


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The size of a search: draws of shots, most dev questions, rates of the ladder to either side, and whether
    `linear` may read hidden states of the base model, which takes the most time and seldom wins."""

    draws: int
    rows: int
    rates: int
    hidden_states: bool = False


SEARCH_SPACES: Mapping[Effort, SearchSpace] = {
    "standard": SearchSpace(draws=2, rows=120, rates=1),
    "thorough": SearchSpace(draws=5, rows=300, rates=2, hidden_states=True),
}

RATES = "learning rates"  # the trials of a trained arm
WORDS = {
    "instruction": "instructions",
    "passages": "numbers of passages",
    "shots": "numbers and draws of shots",
    "shot_passages": "shots with and without their passage",
    "search": "sizes of passages and weights of the two searches",
    "rerank": "passages in the order of the re-ranking model and as found",
}

# The name of a choice, and the contexts to choose from, the present one first.
Options = tuple[str, tuple[Context, ...]]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Planned trials of one kind: their number and the predicted seconds of all.

    `beside`: True if they take their time outside the search time that is equal for all arms, and for each seed.
    """

    what: str
    count: int
    seconds: float
    beside: bool = False


def plan_context_search(session: Session, arm: Arm, effort: Effort, each: float) -> tuple[TrialPlan, ...]:
    """Return the planned trials of an arm's prompts, where one dev question takes `each` seconds."""
    context, space = context_for(arm), SEARCH_SPACES.get(effort)
    rows = len(session.workspace.subset("dev", space.rows)) if space else 0
    if space is None or not rows:
        return ()
    found = []
    for options in rounds(session, arm, context, space):
        what, contexts = options(context)
        asked = _halving_questions(len(contexts), rows)
        found.append(TrialPlan(what=WORDS[what], count=len(contexts), seconds=each * asked))
    return tuple(found)


def _halving_questions(options: int, rows: int) -> int:
    """Return the number of questions in a round of halving over `options` options."""
    alive, before, asked = options, 0, 0
    for size in _sizes(rows):
        asked += alive * (size - before)
        before, alive = size, max(1, alive // 2) + 1
        if options == 1:
            break
    return asked


def _sizes(rows: int) -> list[int]:
    """Return the number of dev questions of each rung, up to all."""
    sizes = [min(FIRST_ROWS, rows)]
    while sizes[-1] < rows:
        sizes.append(min(2 * sizes[-1], rows))
    return sizes


def rounds(session: Session, arm: Arm, context: Context, space: SearchSpace) -> list[Callable[[Context], Options]]:
    """Return the open choices of an arm's prompts in order, each given the earlier ones.

    Empty for trained weights, which read prompts differently from the base model (`arms/search/passage_search.py`).
    """
    if not method_of(arm).uses_base or is_trained(arm):
        return []
    found: list[Callable[[Context], Options]] = []
    splits, task = session.workspace.splits, session.task
    own = instruction_variants(task, session.workspace.labels, splits["train"], passages=arm.retrieves)
    texts = tuple(dict.fromkeys((*own, *session.proposals.texts)))
    if texts:
        found.append(lambda now: ("instruction", (now, *(replace(now, instruction=text) for text in texts))))
    for part in (PARTS[name] for name in arm.parts):
        if part.tried and part.setting not in arm.settings:
            found.append(number_options(part.setting, part.tried, space.draws if has_fixed_shots(context) else 1))
    found += retrieval_variants(session, context)
    if context.passages and context.shots:
        found.append(lambda now: ("shot_passages", (now, replace(now, shot_passages=1))))
    return found


def number_options(setting: str, tried: Sequence[int], draws: int = 1) -> Callable[[Context], Options]:
    """Return the options for the number of a setting; for shots, each number in several draws."""

    def options(now: Context) -> Options:
        if setting != "shots":
            others = [replace(now, passages=count) for count in tried]
        else:
            others = [replace(now, shots=count, draw=draw) for count in tried for draw in range(draws)]
        return setting, (now, *(context for context in others if context != now))

    return options


def retrieval_variants(session: Session, context: Context) -> list[Callable[[Context], Options]]:
    """Return the choices of the retrieval, if passages are retrieved: passage size, search weights, reranking."""
    if not context.passages:
        return []
    ranked = [lambda now: ("rerank", (now, replace(now, rerank=0)))] if session.task.base.reranker else []
    return [partial(_searches, session.task.retrieval.vector_weight), *ranked]


def _searches(usual: float, now: Context) -> Options:
    """Return the retrieval options: single sentences, shorter and longer passages, and other search weights than the
    usual one."""
    sizes = [replace(now, chunk_words=words) for words in PASSAGE_WORDS]
    weights = [replace(now, vector_weight=weight) for weight in VECTOR_WEIGHTS if weight != usual]
    return "search", (now, *(context for context in (*sizes, *weights) if context != now))


class ContextScores:
    """The dev scores of each context: computed once in a study and saved in a file."""

    def __init__(
        self, file: Path | None, ask: Callable[[Context, Sequence[Example]], tuple[Mapping[str, float], float]]
    ) -> None:
        self._file, self._ask = file, ask
        self._scores: dict[Context, dict[str, float]] = {}
        self._seconds: dict[Context, float] = {}
        for line in read_own_lines(file, "context", "scores", "seconds") if file else ():
            self._add(Context(**line["context"]), line["scores"], line["seconds"])

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
        self.out_of_time = False

    @property
    def spent(self) -> float:
        """Return the seconds of all trials."""
        return sum(map(self._scores.seconds, self._contexts))

    def try_context(self, context: Context, like: Context, rows: Sequence[Example]) -> list[float] | None:
        """Return the score of each row; None if its predicted time, if necessary from that of `like`, is too long."""
        if self._contexts and self.spent + self._scores.seconds_to_ask(context, like, rows) > self._limit:
            self.out_of_time = True
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


def choose_context(
    session: Session, arm: Arm, scores: ContextScores, effort: Effort, seconds: float
) -> tuple[Context, ArmEffort | None]:
    """Return the context that scores best on dev, the first of equals, and the effort, in at most `seconds`.

    One choice after the other, each by successive halving. A round that runs out of time decides by its last
    complete rung. Seconds are those of computing the scores, whichever arm did it first. The effort is None if there
    was nothing to try.
    """
    context, space = context_for(arm), SEARCH_SPACES.get(effort)
    rows = session.workspace.subset("dev", space.rows) if space else ()
    if space is None or not rows:
        return context, None
    # a smaller draw is part of a larger one, so that no question is answered twice
    rungs = [session.workspace.subset("dev", size) for size in _sizes(len(rows))]
    tried, bettered = ContextTrials(scores, seconds), False
    for options in rounds(session, arm, context, space):
        if tried.out_of_time:
            break
        former = context
        context = _successive_halving(tried, rungs, context, options(context)[1])
        bettered = context != former
    return context, tried.effort(context, _trial, improving=tried.out_of_time and bettered)


def _successive_halving(
    tried: ContextTrials, rungs: Sequence[Sequence[Example]], now: Context, options: Sequence[Context]
) -> Context:
    """Return the best option; the present one stays to the end, so that none replaces it on a few questions."""
    alive, best = list(options), now
    for rows in rungs:
        means: dict[Context, float] = {}
        for option in alive:
            scores = tried.try_context(option, now, rows)
            if scores is None:
                return best
            means[option] = mean(scores)
        best = max(alive, key=lambda option: means[option])
        ranked = sorted(alive, key=lambda option: -means[option])
        kept = {*ranked[: max(1, len(alive) // 2)], now}
        alive = [option for option in alive if option in kept]
        if len(alive) == 1:
            break
    return best


def _trial(context: Context, score: float) -> Mapping[str, Any]:
    what = {**context.chosen(), **({} if context.instruction else {"instruction": OWN_INSTRUCTION})}
    return {"what": what, "dev_metric": score}
