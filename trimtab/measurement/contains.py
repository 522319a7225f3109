"""Whether an answer gives the fact that a reference states, and no other in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from trimtab.measurement.facts import PREPOSITIONS, read
from trimtab.measurement.lexemes import Token
from trimtab.measurement.numerals import UNITS

Tokens = Sequence[Token]
_MEASURED = ("number", "ordinal", "date", "time")
_COORDINATORS = ("or", "and", "nor")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def contains(answer: str, reference: str, question: str = "") -> bool:
    """Whether the answer holds the reference and gives no other number, date, time or name of the same kind in its place.

    1. Every number, ordinal, date and time of day of the reference stands in the answer, wherever: "thirty months" is
       "30 months", "2 May 2026" is "2026-05-02", "2:30 pm" is "14:30". A unit that the reference has must stand too, unless the
       question names it. A date or time may say more than the reference ("May" in "2 May"), not less.
    2. Its other words stand in the answer as one run, without case, punctuation, articles and words such as "of" and "at".
    3. What the answer denies it does not give: in "not 158 but 112 euros" only 112 is given, in "not 112 euros" nothing.
    4. There is no other of the same kind: no number with the same unit (with none, where the reference has none), no date or
       time that disagrees, no other ordinal, weekday, code such as B-17, or name. "112 or 158 euros" does not give "112 euros",
       "112 euros for 2 nights" does. A name after a preposition which does not stand before the reference explains and is no
       other: "Idris Valcourt from Payroll", but "to Ada Quill or to Idris Valcourt".
    5. Numbers, dates and names that the question holds may be repeated.

    Units are not converted (30 months are not 2.5 years). Words of numbers, months and units are English; digits are read in any
    language.
    """
    given, wanted, asked = read(answer), read(reference), read(question)
    if not wanted:
        return answer.split() == reference.split()
    return _holds(given, wanted, asked) and not any(_others(given, wanted, asked))


def disagrees(answer: str, references: Sequence[str], question: str = "") -> bool:
    """Whether the answer's numbers, dates or times are others than those of every reference.

    Only where each reference has some and the answer gives some: an answer without any is silent, and does not disagree.
    """
    given, asked = read(answer), read(question)
    if not any(token.kind in _MEASURED for token in given):
        return False
    for reference in references:
        measured = tuple(token for token in read(reference) if token.kind in _MEASURED)
        if not measured or (_measured_hold(given, measured, asked) and not any(_others(given, measured, asked))):
            return False
    return bool(references)


def _holds(given: Tokens, wanted: Tokens, asked: Tokens) -> bool:
    measured = [token for token in wanted if token.kind in _MEASURED]
    if not _measured_hold(given, measured, asked):
        return False
    named = {token.value for token in asked}
    spared = {token.counted for token in measured if token.counted in named}
    words, said = _words(wanted, links=False), _words(given, links=False)
    if words and not measured:
        return _run(words, said)
    if not measured:
        return _run(_words(wanted, links=True), _words(given, links=True))
    return _run(words, said) or _run([word for word in words if word not in spared], said)


def _measured_hold(given: Tokens, measured: Tokens, asked: Tokens) -> bool:
    units = {UNITS.get(token.value, token.value) for token in asked} | {token.unit for token in asked if token.unit}
    return all(any(_same(one, token, units) for one in given) for token in measured)


def _same(one: Token, wanted: Token, units: set[str] | frozenset[str] = frozenset()) -> bool:
    """Whether `one` states what is wanted; `units` need not be said again."""
    if one.kind != wanted.kind or one.denied != wanted.denied:
        return False
    if one.kind == "date":
        return _fits(one.value, wanted.value, may_lack=False)
    if one.kind == "time":
        return _clock_fits(one.value, wanted.value)
    if one.kind == "number" and wanted.unit not in ("", one.unit):
        bare = not one.unit and not one.counted
        if not bare or not units.issuperset(wanted.unit.split()):
            return False
    return one.value == wanted.value


def _fits(one: str, wanted: str, may_lack: bool) -> bool:
    """Whether two dates agree where both speak; `may_lack`: `one` may leave out what is wanted."""
    if "/" in one or "/" in wanted:
        return one == wanted
    pairs = zip(one.split("-"), wanted.split("-"), strict=True)
    return all(b.startswith("?") or a == b or (may_lack and a.startswith("?")) for a, b in pairs)


def _clock_fits(one: str, wanted: str) -> bool:
    """Times on the twelve-hour face: one that does not say its half of the day fits either."""
    minute, half = _clock(one)
    other_minute, other_half = _clock(wanted)
    return minute == other_minute and (half == other_half or "?" in (half, other_half))


def _clock(value: str) -> tuple[str, str]:
    return (value[:-1], "?") if value.endswith("?") else (value[:-2], value[-2:])


def _words(tokens: Tokens, links: bool) -> list[str]:
    """The words between the measured facts; one that is denied is another word."""
    return [
        f"~{token.value}" if token.denied else token.value
        for token in tokens
        if token.kind not in _MEASURED and (links or not token.link)
    ]


def _run(wanted: Sequence[str], given: Sequence[str]) -> bool:
    return f" {' '.join(wanted)} " in f" {' '.join(given)} " if wanted else True


def _others(given: Tokens, wanted: Tokens, asked: Tokens) -> Iterator[Token]:
    """What the answer gives in place of the reference's facts."""
    kinds = {token.kind for token in wanted if not token.soft and not token.denied and token.kind != "word"}
    known = {token.value for token in (*wanted, *asked)}
    units = _units(given, wanted)
    for token in given:
        if token.kind not in kinds or token.denied or token.soft or token.value in known:
            continue
        if token.kind == "number" and (token.unit or token.counted) not in units:
            continue
        if token.kind in ("date", "time") and any(_agrees(token, one) for one in (*wanted, *asked)):
            continue
        yield token
    if _named(wanted):
        yield from _other_names(given, wanted, known)


def _units(given: Tokens, wanted: Tokens) -> set[str]:
    """Units, and counted things, that a number may have to stand in place of the reference's."""
    numbers = [token for token in wanted if token.kind == "number"]
    units = {token.unit for token in numbers if token.unit or not token.counted}
    values = {token.value for token in numbers}
    units |= {token.unit or token.counted for token in given if token.kind == "number" and token.value in values}
    return units | ({""} if any(not token.unit for token in numbers) else set())


def _agrees(token: Token, one: Token) -> bool:
    if one.kind != token.kind:
        return False
    if token.kind == "time":
        return _clock_fits(token.value, one.value)
    if "/" in token.value:  # it may be that date: nothing shows that it is another
        year, *parts = token.value.split("/")
        return one.value in (token.value, *(f"{year}-{a}-{b}" for a, b in (parts, parts[::-1])))
    return _fits(token.value, one.value, may_lack=True)


def _named(reference: Tokens) -> bool:
    """Whether a reference is or holds a name: a capital within it, or at each of its words."""
    words = [token for token in reference if token.kind == "word" and not token.link]
    return any(token.capital and not token.start for token in words) or (
        bool(words) and all(token.capital for token in words)
    )


def _other_names(given: Tokens, wanted: Tokens, known: set[str]) -> Iterator[Token]:
    own = {token.value for token in wanted if token.kind == "word" and not token.link}
    first = next(token.value for token in wanted if token.kind == "word" and not token.link)
    before = {_before(given, place) for place, token in enumerate(given) if token.value == first}
    place = 0
    while place < len(given):
        end = place + 1
        if given[place].capital:
            while end < len(given) and given[end].capital and not given[end].fresh:
                end += 1
            name = given[place:end]
            explained = _before(given, place) in PREPOSITIONS - before
            if not explained and not own <= {token.value for token in name} and _is_name(name, given[end : end + 1]):
                yield from (token for token in name if not token.denied and token.value not in known)
        place = end


def _before(tokens: Tokens, place: int) -> str:
    """The word before a token and its article; empty where punctuation parts them."""
    if place and not tokens[place].fresh and tokens[place - 1].value in ("the", "a", "an"):
        place -= 1
    return tokens[place - 1].value if place and not tokens[place].fresh else ""


def _is_name(words: Tokens, after: Tokens) -> bool:
    """Capitals within a sentence; at its start alone only where the next word joins another: "Ada or Idris"."""
    if any(not token.start for token in words):
        return True
    return any(token.value in _COORDINATORS and not token.fresh for token in after)


def stands_in(text: str, statement: str) -> bool:
    """Whether a text holds a statement: its numbers and dates wherever, its other words as one run; what else it says is free."""
    wanted = read(statement)
    return _holds(read(text), wanted, ()) if wanted else statement.strip() in text


def facts_stand_in(text: str, statement: str, question: str = "") -> bool:
    """Whether every number, date, time, code, weekday and name of a statement stands in a text, but for those of the question."""
    given, asked = read(text), read(question)
    known = {token.value for token in asked}
    words = {token.value for token in (*given, *asked)}
    wanted = read(statement)
    named = _named(wanted)
    for token in wanted:
        if token.kind in _MEASURED:
            if not any(_same(replace(one, denied=token.denied), token) for one in (*given, *asked)):
                return False
            continue
        named_here = token.capital and (named or not token.start) and token.value not in known
        if (token.kind != "word" or named_here) and token.value not in words:
            return False
    return True


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def sentences_for(text: str, statement: str) -> list[str]:
    """The sentences of a text that hold any of a statement's facts (numbers, dates, names); all where it states none."""
    facts = _facts(statement)
    return [one for one in sentences(text) if not facts or facts & {(token.kind, token.value) for token in read(one)}]


def sentence_for(text: str, statement: str) -> str:
    """The sentence of a text that holds most of a statement's facts, and of its words where several hold as many."""
    facts, words = _facts(statement), {(token.kind, token.value) for token in read(statement) if not token.link}

    def held(sentence: str) -> tuple[int, int]:
        found = {(token.kind, token.value) for token in read(sentence)}
        return len(facts & found), len(words & found)

    return max(sentences(text), key=held, default="")


def _facts(statement: str) -> set[tuple[str, str]]:
    wanted = read(statement)
    named = _named(wanted)  # else a capital that begins the sentence tells nothing
    return {
        (token.kind, token.value)
        for token in wanted
        if token.kind != "word" or (token.capital and (named or not token.start))
    }
