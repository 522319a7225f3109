"""Parses a text into the facts that it states: numbers with units, ordinals, dates, times of day, names, and other
words.

Digits and dates in digits are read in any language; numbers, months and units in words in English, German, French and
Spanish, and in Chinese and Japanese as languages.py respells them; weekdays and ordinals in English only. Everything
is linear in the length of the text, and no text raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from trimtab.measurement.numerals import (
    CURRENCY_CODES,
    MONTHS,
    MONTHS_OF_DATES,
    ORDINALS,
    SCALES,
    SPELLED,
    TENS,
    UNITS,
    WEEKDAYS,
    canonical,
    numbers_in,
    shifted,
    words,
)
from trimtab.measurement.stances import with_stances
from trimtab.measurement.tokens import LINKS, SIGNS, STOP, Lexeme, TextToken, TokenKind, lexemes

PREPOSITIONS = frozenset(words("in at of from for by with on under to via near per through within"))
TITLES = frozenset(words("dr mr mrs ms prof sir st ltd inc gmbh plc llc"))
"""Of people, and the legal forms of firms: left out when words are compared."""
_NEVER_NAMES = (
    LINKS
    | PREPOSITIONS
    | TITLES
    | set(words("about around exactly only just over after before every between until till minimum maximum"))
    | {"i", "or", "not", "yes", "no", "but", "rather", "nor", "neither"}
)
_POSSESSIVE = re.compile(r"(?:['’]s|s['’])$", re.IGNORECASE)
_NO_COUNTED = frozenset(words("is was has this its his does as us yes less plus thus always perhaps across unless"))


@lru_cache(maxsize=4096)  # references, questions and passages come once for each arm
def read(text: str) -> tuple[TextToken, ...]:
    """Return the tokens of a text, in sequence."""
    shouted = text.isupper()  # capitals then tell nothing
    return tuple(with_stances(_shared_units(_Reader(lexemes(text), shouted).tokens())))


class _Reader:
    """Converts lexemes to tokens, from left to right; each is visited a bounded number of times."""

    def __init__(self, given: Sequence[Lexeme], shouted: bool) -> None:
        self.lexemes, self.shouted = given, shouted
        self.found: list[TextToken] = []
        self.place = 0
        self.began = 0  # the lexeme that the token being read began with
        self.taken: set[int] = set()  # units read with a number before their turn
        self.spent: set[int] = set()  # signs that a number before them has
        self.replaced: TextToken | None = None  # the word before a number that is read as part of it

    def tokens(self) -> list[TextToken]:
        while self.place < len(self.lexemes):
            if self.place in self.taken:
                self.place += 1
                continue
            first, before = self.lexemes[self.place], len(self.found)
            self.replaced = None
            self._next(first)
            if (old := self.replaced) is not None:
                self.found[-1] = replace(self.found[-1], fresh=old.fresh, start=old.start, mark=old.mark)
            elif len(self.found) > before:
                mark = first.gap.strip(" \t") if before else ""
                fresh = before == 0 or bool(mark.strip(" \t-")) or first.gap == " - "
                self.found[before] = replace(self.found[before], fresh=fresh, mark=mark)
        return self.found

    def _at(self, ahead: int = 0, near: bool = True) -> Lexeme | None:
        place = self.place + ahead
        if place >= len(self.lexemes) or place in self.taken or (near and not self.lexemes[place].near):
            return None
        return self.lexemes[place]

    def _next(self, one: Lexeme) -> None:
        self.began = self.place
        self.place += 1
        if one.group in ("iso", "slash", "dotted"):
            self._add(_dated(one))
        elif one.group == "clock":
            self._add(self._clock(one))
        elif one.group == "number":
            self._digits(one)
        elif one.group == "sign":
            if one.text == "&":
                self._add(TextToken(kind="word", value="and"))
        elif not self._spelled(one) and not self._calendar(one):
            self._word(one)

    def _add(self, token: TextToken) -> None:
        self.found.append(token)

    def _word(self, one: Lexeme) -> None:
        previous = self.lexemes[self.place - 2] if self.place > 1 else None
        stopped = bool(STOP.search(one.gap)) and not (previous and previous.low in TITLES)
        coded = any(char.isdigit() for char in one.text)
        per = one.gap.strip() == "/" or (previous is not None and previous.low in ("per", "a", "an", "pro", "par"))
        capital = one.text[0].isupper() and not self.shouted and one.low not in _NEVER_NAMES
        self._add(
            TextToken(
                kind="code" if coded else "word",
                value=one.low.replace("-", "") if coded else UNITS.get(one.low, one.low) if per else one.low,
                capital=capital and not coded,
                possessive=bool(_POSSESSIVE.search(one.text)),
                start=previous is None or stopped,
            )
        )

    def _clock(self, one: Lexeme) -> TextToken:
        hour, minute = (int(part) for part in re.split("[:h]", one.text))
        if hour > 24 or minute > 59:
            return TextToken(kind="code", value=one.text)
        half = self._half()
        return _time(hour, minute, half or _half_in_digits(hour, one.text.startswith("0")))

    def _half(self) -> str:
        after = self._at()
        if after is not None and after.low in ("am", "pm"):
            self.place += 1
            return after.low
        return ""

    def _digits(self, one: Lexeme) -> None:
        suffix = one.suffix.casefold()
        digits = one.text[: len(one.text) - len(one.suffix)]
        values = numbers_in(digits)
        if (
            suffix and suffix not in UNITS and suffix not in ("st", "nd", "rd", "th", "am", "pm", "k", "bn")
        ) or not values:
            return self._add(TextToken(kind="code", value=one.low))
        for value in values[:-1]:
            self._add(TextToken(kind="number" if canonical(value) == value else "code", value=value))
        last = values[-1]
        if last.startswith("0") and len(last) > 1 and "." not in last:
            return self._add(TextToken(kind="code", value=last))  # 0800 is no number: its zero means something
        if one.gap.endswith("-") and ((self.began == 0 and one.gap == "-") or one.gap[-2:-1].isspace()):
            last = last if last == "0" else f"-{last}"
        elif suffix not in ("am", "pm", "st", "nd", "rd", "th"):
            last = self._signed(last)
        if suffix:
            return self._with_suffix(last, suffix)
        after = self._at()
        if after is not None and after.low in ("am", "pm", "oclock"):
            self.place += 1
            return self._add(_hour(last, self._half() if after.low == "oclock" else after.low))
        return self._measured(self._scaled(last))

    def _with_suffix(self, number: str, suffix: str) -> None:
        """Add a number by what is written against it: an hour, a day, a magnitude or a unit."""
        if suffix in ("am", "pm"):
            return self._add(_hour(number, suffix))
        if suffix in ("st", "nd", "rd", "th"):
            return self._counted_date(number, "ordinal")
        if suffix in ("k", "bn"):
            return self._measured(shifted(number, {"k": 3, "bn": 9}[suffix]))
        return self._add(TextToken(kind="number", value=number, unit=UNITS[suffix]))

    def _scaled(self, value: str) -> str:
        for _ in range(2):  # "5 hundred thousand"
            if (after := self._at()) is not None and after.low in SCALES:
                value, self.place = shifted(value, SCALES[after.low]), self.place + 1
        return value

    def _spelled(self, one: Lexeme) -> bool:
        """Read a number in words: cardinals up to millions, ordinals up to 99th, "and a half", "half past two", "half
        an hour"."""
        if one.low in ("half", "quarter") and self._parts(one.low):
            return True
        if one.low in ORDINALS:
            self._counted_date(str(ORDINALS[one.low]), "ordinal")
            return True
        if one.low not in SPELLED and one.low not in TENS and one.low not in SCALES:
            return False
        total, group, last, ordinal = 0, 0, one, False
        while True:
            if last.low in SCALES:
                power = 10 ** SCALES[last.low]
                if power == 100:
                    group = max(group, 1) * power
                else:
                    total, group = total + max(group, 1) * power, 0
            else:
                group += ORDINALS.get(last.low) or SPELLED.get(last.low) or TENS.get(last.low) or 0
                ordinal = last.low in ORDINALS
            step = None if ordinal else self._continues(last)
            if step is None or total + group > 10**15:
                break
            self.place += step
            last = self.lexemes[self.place - 1]
        value = str(total + group) if ordinal else self._signed(str(total + group))
        if ordinal:
            self._counted_date(value, "ordinal")
            return True
        if self._follow("and", "a", "half"):
            value, self.place = f"{value}.5", self.place + 3
        self._measured(value, soft=one.low == "one" and value == "1")
        return True

    def _continues(self, last: Lexeme) -> int | None:
        """Return how many lexemes ahead the number continues; None if it ends."""
        after = self._at()
        if after is None:
            return None
        if after.low in SCALES:
            return 1
        if last.low in TENS and (0 < SPELLED.get(after.low, 0) < 10 or 0 < ORDINALS.get(after.low, 0) < 10):
            return 1
        if last.low in SCALES:
            if after.low in SPELLED or after.low in TENS:
                return 1
            then = self._at(1)
            if after.low == "and" and then is not None and (then.low in SPELLED or then.low in TENS):
                return 2
        return None

    def _follow(self, *words: str) -> bool:
        return all((one := self._at(ahead)) is not None and one.low == word for ahead, word in enumerate(words))

    def _parts(self, part: str) -> bool:
        """Read "half past two", "quarter to three" (am or pm unknown), "half a day"."""
        after, then = self._at(), self._at(1)
        if after is None or then is None:
            return False
        if after.low in ("past", "to"):
            hour = SPELLED.get(then.low) or (
                int(then.text) if then.text.isascii() and then.text.isdigit() and len(then.text) < 3 else 0
            )
            if not 1 <= hour <= 12:
                return False
            minutes = (30 if part == "half" else 15) * (1 if after.low == "past" else -1)
            self.place += 2
            self._add(_time(hour, minutes, self._half()))
            return True
        if part == "half" and after.low in ("a", "an") and then.low in UNITS:
            self.place += 2
            self._add(TextToken(kind="number", value="0.5", unit=UNITS[then.low]))
            return True
        return False

    def _counted_date(self, value: str, kind: TokenKind) -> None:
        """Add an ordinal, or the date if a month follows."""
        if not self._day(value):
            self._add(TextToken(kind=kind, value=value))

    def _day(self, value: str) -> bool:
        """Read the rest of `3 May 2026`, whose day is already read."""
        if not (value.isdigit() and len(value) <= 2 and 1 <= int(value) <= 31):
            return False
        ahead = 1 if self._follow("of") or self._follow("de") else 0
        month = self._at(ahead) or self._at(near=False)
        dotted = month is not None and month.low not in ("may", "march") and month.gap.strip() == "."  # "3. Juni"
        if month is None or month.low not in MONTHS_OF_DATES or (month.gap.strip() and ahead == 0 and not dotted):
            return False
        if month.text == "may" and (verb := self._at(ahead + 1)) is not None and verb.group == "word":
            return False  # "14 may come"
        self.place += ahead + 1
        self._add(TextToken(kind="date", value=f"{self._year()}-{MONTHS_OF_DATES[month.low]:02}-{int(value):02}"))
        return True

    def _year(self) -> str:
        year = self._at(1 if self._follow("de") else 0, near=False)
        if year is None or year.group != "number" or year.gap.strip(" \t") not in ("", ","):
            return "????"
        if len(year.text) != 4 or not year.text.isdigit() or not year.text.startswith(("1", "2")):
            return "????"
        self.place += 2 if self._follow("de") else 1
        return year.text

    def _year_follows(self) -> bool:
        place, year = self.place, self._year()
        self.place = place
        return year != "????"

    def _calendar(self, one: Lexeme) -> bool:
        """Read weekdays, months with or without day and year, noon and midnight."""
        if one.low in WEEKDAYS:
            self._add(TextToken(kind="weekday", value=WEEKDAYS[one.low]))
        elif one.low in ("noon", "midday", "midnight"):
            self._add(_time(0, 0, "am" if one.low == "midnight" else "pm"))
        elif one.low in MONTHS or (one.low in MONTHS_OF_DATES and self._year_follows()):
            day = self._at()
            number = re.match(r"([0-9]{1,2})(?:st|nd|rd|th)?$", day.text.casefold()) if day is not None else None
            verb = self._at(1) if one.text == "may" else None
            if number and 1 <= int(number[1]) <= 31 and (verb is None or verb.group != "word"):
                self.place += 1
                self._add(
                    TextToken(kind="date", value=f"{self._year()}-{MONTHS_OF_DATES[one.low]:02}-{int(number[1]):02}")
                )
            else:
                year = self._year()
                soft = year == "????" and one.low in ("may", "march") and not one.text[0].isupper()
                self._add(TextToken(kind="date", value=f"{year}-{MONTHS_OF_DATES[one.low]:02}-??", soft=soft))
        else:
            return False
        return True

    def _measured(self, value: str, soft: bool = False) -> None:
        """Add a number with its unit: after it, a word later ("four working days"), or a currency before it."""
        if self._day(value):
            return
        after, then = self._at(), self._at(1)
        unit = counted = ""
        if after is not None and after.text in SIGNS:
            unit = SIGNS[after.text]
            self.spent.add(self.place)
            self.place += 1
        elif after is not None and after.low in UNITS:
            unit, self.place = UNITS[after.low], self.place + 1
        elif after is not None and after.group == "word" and after.low not in LINKS | PREPOSITIONS:
            if then is not None and then.low in UNITS and len(then.low) > 2 and after.low not in SPELLED:
                unit = UNITS[then.low]
                self.taken.add(self.place + 1)
                if after.low in ("working", "business"):  # such a day is no day of the calendar
                    unit = f"working {unit}"
                    self.taken.add(self.place)
            else:
                counted = next((one.low for one in (after, then) if one is not None and _is_counted(one)), "")
        unit = unit or self._currency_before()
        if not unit and not counted and self.found and self.found[-1].capital and self.lexemes[self.began].near:
            counted = self.found[-1].value  # "Marlin 5" counts nothing
        self._add(TextToken(kind="number", value=value, unit=unit, counted=counted, soft=soft))

    def _currency_before(self) -> str:
        back = self.began - 1
        if back < 0 or back in self.spent or not self.lexemes[self.began].near:
            return ""
        previous = self.lexemes[back]
        if previous.text in SIGNS and previous.text != "%":
            return SIGNS[previous.text]
        if previous.low in CURRENCY_CODES and self.found and self.found[-1].value == previous.low:
            self.replaced = self.found.pop()
            return UNITS[previous.low]
        return ""

    def _signed(self, value: str) -> str:
        """Return the number, negative if the word before it is "minus"."""
        if not self.found or self.found[-1].value != "minus" or not self.lexemes[self.began].near:
            return value
        self.replaced = self.found.pop()
        return value if value == "0" else f"-{value}"


def _is_counted(one: Lexeme) -> bool:
    """True if a word after a number looks like what it counts: a plural."""
    low = one.low
    return low == "people" or (one.group == "word" and len(low) > 3 and low.endswith("s") and low not in _NO_COUNTED)


def _time(hour: int, minute: int, half: str) -> TextToken:
    """Return a time token: minutes of the half day, and am, pm or unknown."""
    return TextToken(kind="time", value=f"{(60 * hour + minute) % 720} {half or '?'}")


def _hour(value: str, half: str) -> TextToken:
    """Return the time of `2 pm`, or of `2.30 pm`, whose point is not a decimal one."""
    hour, _, minute = value.partition(".")
    minute = minute.ljust(2, "0")
    if len(hour) > 2 or int(hour) > (12 if half else 24) or len(minute) > 2 or int(minute) > 59:
        return TextToken(kind="code", value=f"{value}{half}")
    return _time(int(hour), int(minute), half or _half_in_digits(int(hour), hour.startswith("0")))


def _half_in_digits(hour: int, zero: bool) -> str:
    """Return the half of the day of an hour in digits: am with a zero before it, `24` for one after noon on the clock
    of 24 hours, else `digits`, a clock face."""
    if zero or hour == 24:
        return "am"
    return "24" if hour > 12 else "digits"


def _dated(one: Lexeme) -> TextToken:
    """Return a date in digits; an ambiguous `03/05/2026` stays as written."""
    parts = [int(part) for part in re.split(r"[-./]", one.text)]
    year, month, day = parts if one.group == "iso" else parts[::-1]
    if one.group == "slash" and month <= 12 and day <= 12 and month != day:
        return TextToken(kind="date", value=f"{year:04}/{parts[0]:02}/{parts[1]:02}")
    if month > 12 and one.group == "slash":
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return TextToken(kind="code", value=one.text)
    return TextToken(kind="date", value=f"{year:04}-{month:02}-{day:02}")


def _as_date(token: TextToken, other: TextToken) -> TextToken:
    """Return a bare number beside a date as the year or the day that it is."""
    if token.kind != "number" or other.kind != "date" or token.unit or token.counted or not token.value.isdigit():
        return token
    year, *_, day = other.value.split("-")
    if len(token.value) == 4 and year.isdigit():
        return replace(token, kind="date", value=f"{token.value}-??-??")
    if len(token.value) < 3 and day.isdigit():
        return replace(token, kind="date", value=f"{other.value.removesuffix(day)}{int(token.value):02}")
    return token


def _shared_units(tokens: list[TextToken]) -> list[TextToken]:
    """Give both numbers of "112 or 158 euros", "10-12 euros", "€112 to 158" the unit that one of them has, and both
    dates of "14 or 15 June" and "May 1998 or 1999" what one of them has."""
    for place, token in enumerate(tokens):
        if token.kind not in ("number", "date") or token.fresh or not place:
            continue
        joined = tokens[place - 1].value in ("or", "and", "to") and not tokens[place - 1].fresh and place > 1
        other = place - 2 if joined else place - 1
        left = tokens[other]
        if "date" in (left.kind, token.kind):
            if joined:
                tokens[other], tokens[place] = _as_date(left, token), _as_date(token, left)
        elif left.kind == "number":
            if (left.unit or left.counted) and not (token.unit or token.counted):
                tokens[place] = replace(token, unit=left.unit, counted=left.counted)
            elif (token.unit or token.counted) and not (left.unit or left.counted):
                tokens[other] = replace(left, unit=token.unit, counted=token.counted)
    return tokens
