"""Whether a fact of an answer states the same as one of its reference: numbers with units, dates and times of day."""

from __future__ import annotations

from fractions import Fraction

from trimtab.measurement.numerals import CONVERTED
from trimtab.measurement.tokens import TextToken

_LONGEST_AMOUNT = 30  # digits; a longer number is not converted
_HOUR = 60  # minutes
# Of the day, as in answer and reference. Digits are a clock face that is before noon on the clock of 24 hours.
_SAME_HALF = frozenset((("digits", "am"), ("digits", "pm"), ("pm", "24"), ("24", "pm")))
_MAYBE_HALF = frozenset((("digits", "24"), ("pm", "digits")))  # "2:30" for 14:30, "3 pm" for 3:00


def states_same(one: TextToken, wanted: TextToken, units: set[str] | frozenset[str] = frozenset()) -> bool:
    """True if `one` states the same as `wanted`; `units` may be left out."""
    if one.kind != wanted.kind or one.stance != wanted.stance or one.bound != wanted.bound:
        return False
    if one.kind == "date":
        return _fits(one.value, wanted.value, may_lack=False)
    if one.kind == "time":
        return _clock_fits(one.value, wanted.value)
    if one.kind == "number" and (amount := amount_of(wanted)) is not None and amount_of(one) == amount:
        return True
    if one.kind == "number" and wanted.unit not in ("", one.unit):
        bare = not one.unit and not one.counted
        if not bare or not units.issuperset(wanted.unit.split()):
            return False
    return one.value == wanted.value


def may_agree(token: TextToken, one: TextToken) -> bool:
    """True if two dates or times may be the same, as far as both say."""
    if one.kind != token.kind:
        return False
    if token.kind == "time":
        return _clock_fits(token.value, one.value)
    if "/" in token.value:  # it may be that date: nothing shows that it is another
        year, *parts = token.value.split("/")
        return one.value in (token.value, *(f"{year}-{a}-{b}" for a, b in (parts, parts[::-1])))
    return _fits(token.value, one.value, may_lack=True)


def says_less(one: TextToken, wanted: TextToken) -> bool:
    """True if `one` agrees with `wanted` and leaves something out: a day, am or pm, that a number is an ordinal."""
    if wanted.kind == "date":
        return one.value == wanted.value[:4] if one.kind == "number" else may_agree(one, wanted)
    if wanted.kind == one.kind == "time":
        (minute, half), (other_minute, other_half) = one.value.split(), wanted.value.split()
        return minute == other_minute and (half, other_half) in _MAYBE_HALF
    return {one.kind, wanted.kind} == {"number", "ordinal"} and one.value == wanted.value and not one.unit


def amount_of(token: TextToken) -> tuple[str, Fraction] | None:
    """Return a number converted to the smallest unit of its kind; None if its unit cannot be converted."""
    if token.unit not in CONVERTED or len(token.value) > _LONGEST_AMOUNT:
        return None
    least, factor = CONVERTED[token.unit]
    return least, Fraction(token.value) * factor


def _fits(one: str, wanted: str, may_lack: bool) -> bool:
    """True if two dates agree where both are specified; with `may_lack`, `one` may leave out parts of `wanted`."""
    if "/" in one or "/" in wanted:
        return one == wanted
    pairs = zip(one.split("-"), wanted.split("-"), strict=True)
    return all(b.startswith("?") or a == b or (may_lack and a.startswith("?")) for a, b in pairs)


def _clock_fits(one: str, wanted: str) -> bool:
    """True if a time agrees with the wanted one. "Half past two" and "2:30" are 2:30 pm, but "2:30" is not 14:30, nor
    "3 pm" 3:00."""
    (minute, half), (other_minute, other_half) = one.split(), wanted.split()
    if minute != other_minute:
        return False
    if other_half == "digits":
        half = half.replace("pm" if int(minute) < _HOUR else "am", "digits")
    return half == other_half or "?" in (half, other_half) or (half, other_half) in _SAME_HALF
