"""What an arm may try on dev and what was found there: ways of asking the base model, by successive halving over dev questions.

Weights that are trained read what they are shown otherwise than the base does, so theirs is not chosen by its answers: they get the
fewest passages that hold the answer nearly as often as any number does (decision 32).

Source of the halving: Jamieson and Talwalkar 2016 (arXiv 1502.07943).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from trimtab.arms.contexts import Context, PromptBuilder, context_for, is_unknown
from trimtab.arms.session import Session
from trimtab.arms.wordings import wordings
from trimtab.base.files import append_line, read_lines
from trimtab.base.grammar import PARTS, is_trained, method_of
from trimtab.base.records import Arm, Example
from trimtab.base.results import OWN_INSTRUCTION, ArmEffort, Trial
from trimtab.base.tables import Effort

FIRST_ROWS = 30  # dev questions of the first rung; each next one doubles them
SEARCHES, LOOKUPS = "search.jsonl", "lookups.jsonl"
LOOKED_UP = (
    4  # training rows, in dev questions at most, whose passages say how well a search finds: nothing is answered
)
LOOKUP_SECONDS = 0.02  # of one question; with a model that re-ranks about as long as answering takes
PASSAGE_WORDS = (60, 240)  # beside the usual size
VECTOR_WEIGHTS = (0.25, 0.75)  # beside even ones


@dataclass(frozen=True, kw_only=True)
class Menu:
    """How much an effort tries: draws of shots, dev questions at most, steps of the ladder of learning rates to either side."""

    draws: int
    rows: int
    rates: int


MENUS: Mapping[Effort, Menu] = {
    "standard": Menu(draws=2, rows=120, rates=1),
    "thorough": Menu(draws=5, rows=300, rates=2),
}

RATES = "learning rates"  # the trials of an arm that is trained
WORDS = {
    "instruction": "instructions",
    "passages": "numbers of passages",
    "shots": "numbers and draws of shots",
    "shot_passages": "shots with and without their passage",
    "search": "sizes of passages and weights of the two searches",
    "rerank": "passages in the order of the re-ranking model and as found",
}

Options = tuple[str, tuple[Context, ...]]  # what is varied, and the contexts to choose among, the present one first


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Trials of one kind that an arm may make, how many, and the predicted seconds of all of them."""

    what: str
    count: int
    seconds: float


def planned(session: Session, arm: Arm, effort: Effort, each: float) -> tuple[TrialPlan, ...]:
    """What an arm may try of its prompts, where asking one dev question takes `each` seconds."""
    context, menu = context_for(arm), MENUS.get(effort)
    rows = len(_rows(session, arm, menu)) if menu else 0
    if menu is None or not rows:
        return ()
    if is_trained(arm) and not session.task.base.reranker:
        each = LOOKUP_SECONDS
    found = []
    for options in rounds(session, arm, context, menu):
        what, contexts = options(context)
        asked = len(contexts) * rows if is_trained(arm) else _asked(len(contexts), rows)
        found.append(TrialPlan(what=WORDS[what], count=len(contexts), seconds=each * asked))
    return tuple(found)


def _rows(session: Session, arm: Arm, menu: Menu) -> tuple[Example, ...]:
    """Dev questions to choose an arm's context by; where nothing is answered also training rows, of all those with an answer to be found.

    No text holds a label of a closed set as its answer.
    """
    dev = session.part("dev", menu.rows)
    if not is_trained(arm):
        return dev
    if session.task.task.kind == "classify":
        return ()
    rows = (*session.part("train", LOOKED_UP * menu.rows), *dev)
    return tuple(row for row in rows if not is_unknown(row, session))


def _asked(options: int, rows: int) -> int:
    """Questions of a round of halving over so many options."""
    alive, before, asked = options, 0, 0
    for size in _sizes(rows):
        asked += alive * (size - before)
        before, alive = size, max(1, alive // 2) + 1
        if options == 1:
            break
    return asked


def _sizes(rows: int) -> list[int]:
    """Dev questions of each rung, up to all."""
    sizes = [min(FIRST_ROWS, rows)]
    while sizes[-1] < rows:
        sizes.append(min(2 * sizes[-1], rows))
    return sizes


def rounds(session: Session, arm: Arm, context: Context, menu: Menu) -> list[Callable[[Context], Options]]:
    """What is chosen one after the other for an arm's prompts, each with the rest as chosen before; nothing that its settings fix.

    Trained weights learn to read whatever instruction and shots they are trained with, so these are the usual ones.
    """
    if not method_of(arm).uses_base:
        return []
    found: list[Callable[[Context], Options]] = []
    if not is_trained(arm):
        splits, task = session.workspace.splits, session.task
        own = wordings(task, session.workspace.labels, splits["train"], passages=arm.retrieves)
        texts = tuple(dict.fromkeys((*own, *session.proposals.texts)))
        if texts:
            found.append(lambda now: ("instruction", (now, *(replace(now, instruction=text) for text in texts))))
    for part in (PARTS[name] for name in arm.parts):
        if part.setting not in arm.settings and not (is_trained(arm) and part.setting == "shots"):
            found.append(_numbers(part.setting, part.tried, menu.draws if context.shot_kind == "few-shot" else 1))
    if context.passages:
        found.append(_searches)
        if session.task.base.reranker:
            found.append(lambda now: ("rerank", (now, replace(now, rerank=0))))
    if context.passages and context.shots and not is_trained(arm):
        found.append(lambda now: ("shot_passages", (now, replace(now, shot_passages=1))))
    return found


def _numbers(setting: str, tried: Sequence[int], draws: int) -> Callable[[Context], Options]:
    """The numbers of a setting; of shots, each number in several draws."""

    def options(now: Context) -> Options:
        if setting != "shots":
            others = [replace(now, passages=count) for count in tried]
        else:
            others = [replace(now, shots=count, draw=draw) for count in tried for draw in range(draws)]
        return setting, (now, *(one for one in others if one != now))

    return options


def _searches(now: Context) -> Options:
    """Shorter and longer passages, and either search weighing more."""
    sizes = [replace(now, chunk_words=words) for words in PASSAGE_WORDS]
    weights = [replace(now, vector_weight=weight) for weight in VECTOR_WEIGHTS]
    return "search", (now, *(one for one in (*sizes, *weights) if one != now))


class DevScores:
    """What questions scored under each context: asked once in a study, kept in a file as it comes."""

    def __init__(
        self, file: Path | None, ask: Callable[[Context, Sequence[Example]], tuple[Mapping[str, float], float]]
    ) -> None:
        self._file, self._ask = file, ask
        self._scores: dict[Context, dict[str, float]] = {}
        self._seconds: dict[Context, float] = {}
        for line in read_lines(file) if file else ():
            self._add(Context(**line["context"]), line["scores"], line["seconds"])

    def _add(self, context: Context, scores: Mapping[str, float], seconds: float) -> None:
        self._scores.setdefault(context, {}).update(scores)
        self._seconds[context] = self._seconds.get(context, 0.0) + seconds

    def of(self, context: Context, rows: Sequence[Example]) -> list[float]:
        """The score of each question; those that were not asked yet are asked."""
        known = self._scores.get(context, {})
        new = [row for row in rows if row.id not in known]
        if new:
            scores, seconds = self._ask(context, new)
            self._add(context, scores, seconds)
            if self._file:
                append_line(self._file, {"context": asdict(context), "scores": dict(scores), "seconds": seconds})
        return [self._scores[context][row.id] for row in rows]

    def known(self, context: Context) -> Mapping[str, float]:
        """The scores of the questions that were asked, by id."""
        return self._scores.get(context, {})

    def seconds(self, context: Context) -> float:
        """What asking under this context took."""
        return self._seconds.get(context, 0.0)

    def more(self, context: Context, like: Context, rows: Sequence[Example]) -> float:
        """Foretold seconds of asking what is not known yet of a context, where need be by what `like` took."""
        timed = context if self._scores.get(context) else like
        known = self._scores.get(timed, {})
        each = self._seconds[timed] / len(known) if known else 0.0
        return each * sum(row.id not in self._scores.get(context, {}) for row in rows)


def find_right(session: Session, context: Context, rows: Sequence[Example]) -> tuple[Mapping[str, float], float]:
    """For each question 1 where its prompt shows a right passage, else 0, and the seconds that looking up took."""
    _ = session.index_of(context.words)  # made once, whoever needs it first
    began = time.perf_counter()
    found = PromptBuilder(session, context).find_right(rows)
    return {row.id: float(right) for row, right in zip(rows, found, strict=True)}, time.perf_counter() - began


def choose_context(
    session: Session, arm: Arm, scores: DevScores, effort: Effort, seconds: float
) -> tuple[Context, ArmEffort | None]:
    """The way of asking that scores best on dev, the first of equals, and what was tried for it in at most `seconds`.

    One thing after the other, each by successive halving; of an arm that is trained, whose `scores` are those of `find_right`, the
    first that finds nearly as often as the best. A round that its time does not reach to the end chooses by the last rung
    that is whole. Seconds are those that asking took, whichever arm asked first. No effort: there was nothing to try.
    """
    context, menu = context_for(arm), MENUS.get(effort)
    rows = _rows(session, arm, menu) if menu else ()
    if menu is None or not rows:
        return context, None
    search = _Search(session, scores, rows, seconds)
    for options in rounds(session, arm, context, menu):
        if search.out_of_time:
            break
        contexts = options(context)[1]
        context = search.lightest(context, contexts) if is_trained(arm) else search.halve(context, contexts)
    return (context, search.effort(context, found=is_trained(arm))) if search.tried else (context, None)


class _Search:
    """One arm's search: what it has tried, and what that took."""

    def __init__(self, session: Session, scores: DevScores, rows: Sequence[Example], seconds: float) -> None:
        self.scores, self.limit, self.rows, self.margin = scores, seconds, rows, session.task.target.margin
        # a smaller draw is a part of a larger one, so that no question is asked twice
        self.rungs = [session.part("dev", size) for size in _sizes(len(rows))]
        self.tried: dict[Context, None] = {}
        self.out_of_time = self.bettered = False

    @property
    def spent(self) -> float:
        """Seconds of everything tried."""
        return sum(map(self.scores.seconds, self.tried))

    def halve(self, now: Context, options: Sequence[Context]) -> Context:
        """The best of the options; the present one stays in to the end, so that none takes its place on a few questions alone."""
        alive, best, self.bettered = list(options), now, False
        for rows in self.rungs:
            means: dict[Context, float] = {}
            for option in alive:
                if self.tried and self.spent + self.scores.more(option, now, rows) > self.limit:
                    self.out_of_time = True
                    return best
                self.tried[option] = None
                means[option] = mean(self.scores.of(option, rows))
            best = max(alive, key=lambda option: means[option])
            self.bettered = best != now
            ranked = sorted(alive, key=lambda option: -means[option])
            kept = {*ranked[: max(1, len(alive) // 2)], now}
            alive = [option for option in alive if option in kept]
            if len(alive) == 1:
                break
        return best

    def lightest(self, now: Context, options: Sequence[Context]) -> Context:
        """Of what finds at most the task's margin less often than the best, what shows the fewest passages, and then the present one.

        Over the rows to which any of them shows a right passage; where these are few, nothing is known and the present one stays.
        """
        scores: dict[Context, list[float]] = {}
        for option in options:
            if self.tried and self.spent + self.scores.more(option, now, self.rows) > self.limit:
                self.out_of_time = True
                return now
            self.tried[option] = None
            scores[option] = self.scores.of(option, self.rows)
        known = sum(map(max, zip(*scores.values(), strict=True)))
        if known < FIRST_ROWS:
            return now
        means = {option: sum(found) / known for option, found in scores.items()}
        enough = [option for option in options if means[option] >= max(means.values()) - self.margin - 1e-9]
        return min(enough, key=lambda option: (option.passages, option != now, -means[option]))

    def effort(self, chosen: Context, *, found: bool) -> ArmEffort:
        """The record of it; `found`: scores are those of `find_right`."""
        means = {option: mean(self.scores.known(option).values()) for option in self.tried}
        own = {} if found else {"instruction": OWN_INSTRUCTION}
        trials = [
            Trial(
                what={**({} if option.instruction else own), **option.chosen()},
                dev_loss=None,
                dev_metric=None if found else means[option],
                found=means[option] if found else None,
                rows=len(self.scores.known(option)),
                seconds=self.scores.seconds(option),
                kept=option == chosen,
            )
            for option in self.tried
        ]
        return ArmEffort(
            seconds=self.spent,
            trials=tuple(trials),
            stopped="budget" if self.out_of_time else "no trial was better",
            improving=self.out_of_time and self.bettered,
        )
