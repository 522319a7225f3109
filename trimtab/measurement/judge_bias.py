"""What moves a judge's grades beside the criteria: an answer's length and format, and its place in a comparison."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from trimtab.base.config import JudgeTable
from trimtab.base.records import Answer
from trimtab.base.results import Estimate
from trimtab.measurement.audit import audited_answers
from trimtab.measurement.judge import CHOICES, pair_key
from trimtab.measurement.statistics import LEVEL

CLEAR = 0.01  # error probability at which a lean is told: two are looked for in every study
LEAST_QUESTIONS = 20  # with pairs of answers that differ, below which nothing is said
_MARKUP = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s|^#{1,6}\s|\*\*[^*\n]+\*\*|__[^_\n]+__", re.MULTILINE)
# Text that speaks to a judge: markup of chats, lines like our fences, and orders or marks in a few languages.
_SAYS = r"\W{1,3}(?:the\s+word\W{1,3})?(?:yes|partly|no|first|second|tie)\b"
_TO_JUDGE = re.compile(
    r"<\|\w+\|>|\[/?INST\]|<<SYS>>|\"role\"\s*:\s*\"system\"|^\W*system\s*:|^==[0-9a-f]{16}==$"
    r"|\b(?:ignore|disregard|forget|override|ignorez|ignora|ignoriere|vergiss|beachte)\b.{0,40}"
    r"\b(?:criteri\w+|crit[eè]re\w*|kriteri\w+|instructions?|anweisung\w*|above|result)\b"
    r"|\b(?:reply|respond|write|judgement|judgment|grade|mark|verdict|criterion met|répondez|responde|antworte)"
    rf"(?:\s+(?:with|mit))?[:?]?{_SAYS}"
    r"|\b(?:to the|dear|note to the|an den|au|al)\s+(?:judge|grader|evaluator|richter|juge|juez)\b|致评审|إلى الحَكَم",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lean:
    """A rank correlation of grades with a feature of answers, from -1 to 1; `clear`: shown not to be 0."""

    correlation: Estimate
    clear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEffect:
    """Comparisons asked in both orders, and how many of them changed the choice: to whichever came first, or second."""

    compared: int
    to_first: int
    to_second: int

    @property
    def changed(self) -> int:
        """Number of comparisons in which the order changed the choice."""
        return self.to_first + self.to_second

    @property
    def clear(self) -> bool:
        """True if one place is shown to be favoured."""
        return self.changed > 0 and float(stats.binomtest(self.to_first, self.changed).pvalue) < CLEAR


def count_markup(text: str) -> int:
    """Return the number of list items, headings and bold words of an answer."""
    return len(_MARKUP.findall(text))


def speaks_to_judge(text: str) -> bool:
    """True if an answer seems to instruct whoever grades it. Orders in other words are not seen."""
    return _TO_JUDGE.search(text) is not None


def grade_lean(answers: Mapping[str, Sequence[Answer]], feature: Callable[[str], float]) -> Lean | None:
    """Return γ of Goodman & Kruskal (1954) of grade and feature over all pairs of answers to the same question that
    differ in both; None with pairs in fewer than LEAST_QUESTIONS questions or groups.

    The interval counts groups of questions as one, and one more pair to each side of every question's mean number, so
    that a few that agree show little.
    """
    agree: dict[str, float] = defaultdict(float)
    pairs: dict[str, float] = defaultdict(float)
    by_item: dict[str, list[Answer]] = defaultdict(list)
    for own in audited_answers(answers).values():
        for answer in own.values():
            by_item[answer.item_id].append(answer)
    for item, given in by_item.items():
        for one, other in combinations(given, 2):
            sign = (one.score - other.score) * (feature(one.answer) - feature(other.answer))
            if sign:
                agree[one.group or f"\0{item}"] += math.copysign(1.0, sign)
                pairs[one.group or f"\0{item}"] += 1.0
    if len(pairs) < LEAST_QUESTIONS:
        return None
    mean = sum(pairs.values()) / len(pairs)
    sums_G, counts_G = np.array([*agree.values(), mean, -mean]), np.array([*pairs.values(), mean, mean])
    value, groups = float(sums_G.sum() / counts_G.sum()), len(counts_G)
    rest_G = sums_G - value * counts_G
    error = math.sqrt(groups / (groups - 1) * float(rest_G @ rest_G)) / float(counts_G.sum())

    def reach(level: float) -> float:
        return float(stats.t.isf(level / 2, groups - 1)) * error

    low, high = max(-1.0, value - reach(LEVEL)), min(1.0, value + reach(LEVEL))
    estimate = Estimate(value=value, low=low, high=high, n=int(sum(pairs.values())))
    return Lean(correlation=estimate, clear=abs(value) > reach(CLEAR))


def order_effect(
    lines: Iterable[Mapping[str, object]], version: str, table: JudgeTable, answers: Mapping[str, Sequence[Answer]]
) -> OrderEffect | None:
    """Return how often the order changed the choice of the judge of this version among these answers; None if none of
    them was compared. `lines`: kept judgements."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for line in lines:
        if "pair" in line and line["version"] == version:
            said[str(line["pair"])].setdefault(str(line["place"]), str(line["degree"]))
    rows = {(one.item_id, one.input, one.reference, one.answer) for own in answers.values() for one in own}
    keys = {pair_key(criterion, row) for row in rows for criterion in table.criteria.values()}
    both = [said[key] for key in keys & said.keys() if said[key].keys() == CHOICES.keys()]
    # how far each order's choice is towards what came first: 1, 0 for a tie, or -1
    leans = [sum(2 * CHOICES["first"][word] - 1 for word in words.values()) for words in both]
    found = OrderEffect(
        compared=len(both), to_first=sum(lean > 0 for lean in leans), to_second=sum(lean < 0 for lean in leans)
    )
    return found if both else None
