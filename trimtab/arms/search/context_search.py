"""Search of an arm's context on dev with the base model: one choice after the other, each by successive halving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from trimtab.arms.contexts import Context, context_for, has_fixed_shots
from trimtab.arms.search.instructions import instruction_variants
from trimtab.arms.search.reflection import (
    ANSWER_TOKENS,
    Practice,
    ReflectionSearch,
    Reflector,
    reflection_questions,
    request_tokens,
)
from trimtab.arms.search.shot_search import Known, shot_orders, shot_sets, valued_sets
from trimtab.arms.search.trials import FIRST_ROWS, ContextScores, ContextTrials, successive_halving
from trimtab.arms.session import Session
from trimtab.base.config import Effort
from trimtab.base.grammar import PARTS, SENTENCE, is_trained, method_of
from trimtab.base.records import Arm
from trimtab.base.results import OWN_INSTRUCTION, ArmEffort

SEARCHES = "search.jsonl"
PASSAGE_WORDS = (SENTENCE, 60, 240)  # besides the default size
VECTOR_WEIGHTS = (0.25, 0.5, 0.75)  # that are tried besides the task's own


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The size of a search: draws of shots, most dev questions, rates of the ladder to either side, and whether
    `linear` may read hidden states of the base model, which takes the most time and seldom wins.

    `sets`, `orders`: of fixed shots, chosen row by row; 0 leaves them as drawn. `rewritings`: of the instruction by
    reflection, where the task names a model for it.
    """

    draws: int
    rows: int
    rates: int
    hidden_states: bool = False
    sets: int = 0
    orders: int = 0
    rewritings: int = 0


SEARCH_SPACES: Mapping[Effort, SearchSpace] = {
    "standard": SearchSpace(draws=2, rows=120, rates=1, rewritings=6),
    "thorough": SearchSpace(draws=5, rows=300, rates=2, hidden_states=True, sets=8, orders=4, rewritings=15),
}

RATES = "learning rates"  # the trials of a trained arm
WORDS = {
    "instruction": "instructions",
    "reflection": "rewritings of the instruction",
    "passages": "numbers of passages",
    "shots": "numbers and draws of shots",
    "shot_sets": "sets of shots",
    "valued_set": "the set of the rows whose sets scored best",
    "shot_order": "orders of the shots",
    "shot_passages": "shots with and without their passage",
    "search": "sizes of passages and weights of the two searches",
    "rerank": "passages in the order of the re-ranking model and as found",
}
ACROSS_FOLDS = ("shot_sets", "valued_set", "shot_order")  # many options, of which the best on dev may be so by chance

# The name of a choice, and the contexts to choose from, the present one first.
Options = tuple[str, tuple[Context, ...]]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """Planned trials of one kind: their number and the predicted seconds of all.

    `calls` and `fee`: of an endpoint, in the task's currency. `beside`: True if they take their time outside the
    search time that is equal for all arms, and for each seed.
    """

    what: str
    count: int
    seconds: float
    beside: bool = False
    calls: int = 0
    fee: float = 0.0


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
    if session.reflector is not None and may_rewrite(session, arm):
        found.append(_plan_reflection(session, session.reflector, space.rewritings, rows, each))
    return tuple(found)


def may_rewrite(session: Session, arm: Arm) -> bool:
    """True if an arm's instruction may be rewritten: it is not trained, and the rows do not bring their own."""
    train = session.workspace.splits["train"]
    own = all(row.messages[0].role == "system" for row in train)
    return method_of(arm).uses_base and not is_trained(arm) and not own


def _plan_reflection(session: Session, reflector: Reflector, steps: int, rows: int, each: float) -> TrialPlan:
    """Return the planned rewritings of an arm, where one dev question takes `each` seconds."""
    questions = reflection_questions(steps, _sizes(rows)[0]) + _halving_questions(steps + 1, rows)
    price = reflector.price
    return TrialPlan(
        what=f"{WORDS['reflection']} by {reflector.name}",
        count=steps,
        seconds=each * questions + steps * reflector.call_seconds(each),
        calls=steps,
        fee=steps * price.fee(request_tokens(session), ANSWER_TOKENS) if price else 0.0,
    )


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


def rounds(
    session: Session, arm: Arm, context: Context, space: SearchSpace, known: Known = lambda _: {}
) -> list[Callable[[Context], Options]]:
    """Return the open choices of an arm's prompts in order, each given the earlier ones. `known`: scores so far.

    Empty for trained weights, which read prompts differently from the base model (`arms/search/passage_search.py`).
    """
    if not method_of(arm).uses_base or is_trained(arm):
        return []
    found: list[Callable[[Context], Options]] = []
    splits, task = session.workspace.splits, session.task
    texts = instruction_variants(task, session.workspace.labels, splits["train"], passages=arm.retrieves)
    if texts:
        found.append(lambda now: ("instruction", (now, *(replace(now, instruction=text) for text in texts))))
    for part in (PARTS[name] for name in arm.parts):
        if part.tried and part.setting not in arm.settings:
            found.append(number_options(part.setting, part.tried, space.draws if has_fixed_shots(context) else 1))
    found += retrieval_variants(session, context)
    if has_fixed_shots(context) and space.sets:
        train = splits["train"]
        found.append(lambda now: ("shot_sets", shot_sets(train, now, space.sets)))
        found.append(lambda now: ("valued_set", valued_sets(train, now, space.sets, known)))
        found.append(lambda now: ("shot_order", shot_orders(train, now, space.orders)))
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


def choose_context(
    session: Session,
    arm: Arm,
    scores: ContextScores,
    effort: Effort,
    seconds: float,
    *,
    practice: Practice | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Context, ArmEffort | None]:
    """Return the context that scores best on dev, the first of equals, and the effort, in at most `seconds`.

    One choice after the other, each by successive halving. A round that runs out of time decides by its last
    complete rung. Seconds are those of computing the scores, whichever arm did it first. The effort is None if there
    was nothing to try. `practice`: answers training rows, without which no instruction is rewritten.
    """
    context, space = context_for(arm), SEARCH_SPACES.get(effort)
    rows = session.workspace.subset("dev", space.rows) if space else ()
    if space is None or not rows:
        return context, None
    # a smaller draw is part of a larger one, so that no question is answered twice
    rungs = [session.workspace.subset("dev", size) for size in _sizes(len(rows))]
    tried, bettered = ContextTrials(scores, seconds), False
    for options in rounds(session, arm, context, space, tried.known):
        if tried.out_of_time:
            break
        former, (what, contexts) = context, options(context)
        context = successive_halving(tried, rungs, context, contexts, across_folds=what in ACROSS_FOLDS)
        bettered = context != former
    reflection = None
    if session.reflector is not None and practice and may_rewrite(session, arm) and not tried.out_of_time:
        rewriting = ReflectionSearch(session, session.reflector, practice, tried, space.rewritings, tell)
        former, context = context, rewriting.run(context, rungs)
        bettered, reflection = bettered or context != former, rewriting.found
    found = tried.effort(context, _trial, improving=tried.out_of_time and bettered)
    return context, replace(found, reflection=reflection) if found else None


def _trial(context: Context, score: float) -> Mapping[str, Any]:
    what = {**context.chosen(), **({} if context.instruction else {"instruction": OWN_INSTRUCTION})}
    return {"what": what, "dev_metric": score}
