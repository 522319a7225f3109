"""People who judge answers: what each of them said, their mean, and how far they agree (Krippendorff's α)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.base.errors import InputError
from trimtab.base.machine import user_name
from trimtab.base.results import Agreement, Estimate
from trimtab.measurement.statistics import LEVEL

FEWEST = 10  # answers that several people judged, from which on their agreement is given
RELIABLE, TENTATIVE = 0.8, 0.667  # α from which on judgements can be relied on, and below which they cannot
RESAMPLES = 2_000
_LONGEST_NAME = 200  # letters
Numbers = NDArray[np.float64]
Key = tuple[str, str, str]  # question, answer, criterion


def rater_name(by: str | None) -> str:
    """Return the name under which somebody's judgements are kept: the user's, unless one is given.

    Raises InputError for one that names nobody.
    """
    name = user_name() if by is None else by.strip()
    if not name or len(name) > _LONGEST_NAME:
        raise InputError(f"{name[:80]!r} names nobody", f"give a name of up to {_LONGEST_NAME} letters", field="--by")
    return name


def said_by_person(rows: Iterable[Mapping[str, Any]]) -> dict[Key, dict[str, float]]:
    """Return what each person said of an answer by a criterion, 0 to 1, from the rows of an audit's file.

    Of several judgements by one person the last counts, and null withdraws it. Rows of no name are one person's.
    """
    said: dict[Key, dict[str, float]] = {}
    for row in rows:
        by = said.setdefault((str(row["item"]), str(row["answer"]), str(row["criterion"])), {})
        by.pop(str(row.get("by", "")), None)
        if row["value"] is not None:
            by[str(row.get("by", ""))] = float(row["value"])
    return {key: by for key, by in said.items() if by}


def judged_by_key(rows: Iterable[Mapping[str, Any]], shares: Mapping[str, float]) -> dict[tuple[str, str], float]:
    """Return people's scores by question and answer: the mean over the criteria, weighted by `shares`, of those that
    were judged by all. Where people differ, the mean of what they say counts."""
    values = {key: math.fsum(by.values()) / len(by) for key, by in said_by_person(rows).items()}
    keys = dict.fromkeys((item, answer) for item, answer, _ in values)
    return {
        key: math.fsum(share * values[*key, criterion] for criterion, share in shares.items())
        for key in keys
        if all((*key, criterion) in values for criterion in shares)
    }


class Sources(NamedTuple):
    """Questions by how they came to be judged. `asked`: some answer was asked for by an audit, in the order of its
    draw; `chosen`: all judgements of it were imported, and nobody says that it was drawn at random."""

    asked: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()


ASKED = Sources()  # all were asked for


def judgement_sources(rows: Iterable[Mapping[str, Any]]) -> Sources:
    """Return how the questions of an audit's file came to be judged."""
    by_item: dict[str, set[object]] = {}
    for row in rows:
        by_item.setdefault(str(row["item"]), set()).add(row.get("drawn"))
    asked = frozenset(item for item, drawn in by_item.items() if None in drawn)
    return Sources(asked, frozenset(item for item, drawn in by_item.items() if drawn == {False}))


def audit_looks(rows: Iterable[Mapping[str, object]]) -> int:
    """Return how often a study was decided with people's judgements: the rows that name no question."""
    return sum(row["item"] == "" for row in rows)


def agreements(said: Mapping[Key, Mapping[str, float]]) -> tuple[Agreement, ...]:
    """Return people's agreement by criterion, of those by which several people judged at least FEWEST answers."""
    found = []
    for criterion in dict.fromkeys(key[2] for key in said):
        of_items: dict[str, list[Mapping[str, float]]] = {}
        for (item, _, name), by in said.items():
            if name == criterion and len(by) > 1:
                of_items.setdefault(item, []).append(by)
        agreement = agreement_of(list(of_items.values()), criterion)
        if agreement is not None:
            found.append(agreement)
    return tuple(found)


def agreement_of(questions: Sequence[Sequence[Mapping[str, float]]], criterion: str = "") -> Agreement | None:
    """Return the agreement on answers that several people judged, by question; None for fewer than FEWEST answers.

    Krippendorff's α (2004) of values from 0 to 1, with squared differences. Its interval is that of a bootstrap over
    questions, and no narrower below than with one more answer of which two people say the opposite: twelve answers
    without a disagreement do not show that there is none.
    """
    answers = [by for own in questions for by in own]
    if len(answers) < FEWEST:
        return None
    parts_Q = np.array([np.sum([_parts(list(by.values())) for by in own], axis=0) for own in questions])
    whole = parts_Q.sum(0)
    chosen_RQ = np.random.default_rng(0).integers(len(parts_Q), size=(RESAMPLES, len(parts_Q)))
    drawn = np.sort(_alpha(parts_Q[chosen_RQ].sum(1)))
    low, high = np.quantile(drawn, (LEVEL / 2, 1 - LEVEL / 2))
    with_one_more = float(_alpha((whole + _parts([0.0, 1.0]))[None])[0])
    value = float(_alpha(whole[None])[0])
    return Agreement(
        criterion=criterion,
        people=tuple(sorted({person for by in answers for person in by})),
        alpha=Estimate(value=value, low=min(float(low), with_one_more), high=max(float(high), value), n=len(answers)),
        disagree=sum(len(set(by.values())) > 1 for by in answers),
    )


def _parts(values: Sequence[float]) -> Numbers:
    """Return the sums from which α is made, of one answer: differences within it, count, sum, and sum of squares."""
    count, total, squares = len(values), math.fsum(values), math.fsum(value**2 for value in values)
    return np.array([2 * (count * squares - total**2) / (count - 1), count, total, squares])


def _alpha(parts_RP: Numbers) -> Numbers:
    """Return α of each row of sums; 1 where all values are the same."""
    within, count, total, squares = parts_RP.T
    expected = 2 * (count * squares - total**2) / (count - 1)
    found: Numbers = 1 - np.divide(within, expected, out=np.zeros_like(within), where=expected > 1e-12)
    return found


def agreement_words(agreement: Agreement) -> str:
    """Say how far people agree, and what to do where they do not."""
    names, alpha = " and ".join(name or "somebody" for name in agreement.people), agreement.alpha
    of = f" on {agreement.criterion.partition(':')[0]}" if agreement.criterion else ""
    figures = f"Krippendorff's α {alpha.value:.2f}, 95% interval {alpha.low:.2f} to {alpha.high:.2f}"
    told = f"{names} agree{of} in {alpha.n - agreement.disagree:,} of {alpha.n:,} answers ({figures})"
    if alpha.value >= RELIABLE:
        return f"{told}."
    if alpha.value >= TENTATIVE:
        return f"{told}: enough for a tentative conclusion, and no more."
    mend = "write the criterion more precisely" if agreement.criterion else "agree on what counts as right"
    return f"{told}: too little to rely on; {mend} before more is judged."
