"""Lexemes of a text (dates and clock times in digits, codes, runs of digits, words, signs), and the tokens built from
them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trimtab.measurement.languages import PARTICLES, respelled
from trimtab.measurement.numerals import words

TokenKind = Literal["word", "code", "weekday", "number", "ordinal", "date", "time"]
Stance = Literal["given", "denied", "former", "related", "apart"]
Bound = Literal["", "min", "max", "over", "under", "times", "start", "stop"]
LINKS = frozenset(
    words("a an the of in on at for per and is are was were be been it its")
    + tuple(PARTICLES)
    + words("der das dem des ein eine einen im am um ist le les du une est el una")
)
"""Words that say nothing by themselves: left out when words are compared, unless there is nothing else."""

IN_ENGLISH: Mapping[str, str] = {
    form: word
    for word, forms in {
        "or": "oder ou",
        "and": "und et",
        "not": "nicht kein keine keinen keiner pas ningun",
        "but": "sondern mais sino pero aber",
        "except": "ausser sauf excepto salvo",
        "between": "zwischen entre",
        "to": "bis",
        "yes": "ja oui si",
        "people": "personen personnes personas",
        "oclock": "uhr",
        "working": "ouvres ouvrables habiles laborables",
    }.items()
    for form in words(forms)
}
"""Words of German, French and Spanish by the English ones of which the rules tell."""
_LEXEME = re.compile(
    r"""(?P<iso>(?<![\w.,-])[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?![\w-]))
    |(?P<slash>(?<![\w/])[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}(?![\w/]))
    |(?P<dotted>(?<![\w.])[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}(?!\w))
    |(?P<clock>(?<![\w:])[0-9]{1,2}(?::[0-9]{2}(?![0-9:])|\ ?h\ ?[0-9]{2}\b))
    |(?P<code>[^\W\d_]{1,8}-[0-9][^\W_]*)
    |(?P<number>[0-9]+(?:[.,'’][0-9]+|[ ][0-9]{3}(?![0-9]))*)(?P<suffix>[^\W_]*)
    |(?P<word>[^\W_]+(?:['’][^\W_]+)*)
    |(?P<sign>[€$£¥%&])""",
    re.VERBOSE,
)
_VERSION = re.compile(r"(?<![^\W_])v\.? ?(?=[0-9]+\.[0-9])", re.IGNORECASE)
_ELIDED = ("l'", "d'")
_ACCENT = re.compile("[\u0300-\u036f]")
_HALF = re.compile(
    r"([0-9]|\b(?:past|to) [a-z]+)(?: o['’]clock)?,? "
    r"(?:(in the morning|du matin|de la mañana|morgens)"
    r"|in the afternoon|in the evening|at night|abends|du soir|de la tarde)\b",
    re.IGNORECASE,
)
_FRACTIONS = {"½": "5", "¼": "25", "¾": "75"}
_SCALES = {"C": "celsius", "F": "fahrenheit"}
SIGNS = {"€": "euro", "$": "dollar", "£": "pound", "¥": "yen", "%": "percent"}
STOP = re.compile(r"[.!?;:\n\r\u2028\u2029…•]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextToken:
    """One fact or word of a text; two are the same if kind, value, stance and bound are.

    value: words folded; numbers as canonical decimals; dates as YYYY-MM-DD with ? for what is not said; times as
    minutes of the half day, then am, pm, 24 (after noon on the clock of 24 hours), digits (a clock face) or ?.
    `counted`: the plural after a number without a unit ("36 people").
    `stance`: how the text stands to it (stances.py); `related`: only something of it is told, as in "NAME's deputy";
    `apart`: a number of how far two things are apart. `bound`: what words say of a number: at least, more than, the
    first of a range. `clause`: the number of its clause. `capital`, `start`: how it was written, at the start of a
    sentence or not. `mark`: the punctuation before it; `fresh`: there is some, other than a hyphen.
    """

    kind: TokenKind
    value: str
    unit: str = ""
    counted: str = ""
    stance: Stance = "given"
    bound: Bound = ""
    clause: int = 0
    possessive: bool = False
    capital: bool = False
    start: bool = False
    fresh: bool = False
    mark: str = ""
    soft: bool = False

    @property
    def denied(self) -> bool:
        """True if the text denies it."""
        return self.stance == "denied"

    @property
    def link(self) -> bool:
        """True if it is a word without content of its own."""
        return self.kind == "word" and self.value in LINKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexeme:
    """One lexeme. `gap`: the text between it and the one before; `low`: folded, without apostrophes."""

    group: str
    text: str
    suffix: str
    gap: str
    low: str

    @property
    def near(self) -> bool:
        """True if nothing but spaces or one hyphen separates it from the one before."""
        return self.gap.strip(" \t") in ("", "-")


def _prepared(text: str) -> str:
    for sign, digits in _FRACTIONS.items():
        if sign in text:
            text = re.sub(rf"(?<=[0-9]) ?{sign}", f".{digits}", text).replace(sign, f"0.{digits}")
    text = respelled(unicodedata.normalize("NFKC", text).replace("−", "-"))
    text = re.sub(r"(?<=[0-9])( ?)([ap])\.?m\b\.?", r"\1\2m", text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=[0-9]) ?[–—] ?(?=[0-9])", "-", text)
    text = re.sub(r"°\s?([CF])?\b", lambda one: f" degrees {_SCALES.get(one[1], '')} ", text) if "°" in text else text
    text = re.sub(r"(?<!\S)-(?=[€$£¥][0-9])", "minus ", text)
    text = _HALF.sub(lambda one: f"{one[1]} {'am' if one[2] else 'pm'}", text)
    text = _VERSION.sub("", text)
    return re.sub(r"\b(?:per cent|pour cent|por ciento)\b", "percent", text, flags=re.IGNORECASE)


def folded(text: str) -> str:
    """Return a word as words are compared: without case, accents, apostrophes and possessive s."""
    low = text.casefold().replace("’", "'")
    if not low.isascii():
        low = unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", low)))
    if low.startswith(_ELIDED) and len(low) > 3:
        low = low[2:]
    low = low.removesuffix("'s").replace("'", "") or low
    return IN_ENGLISH.get(low, low)


def lexemes(text: str) -> list[Lexeme]:
    """Return the lexemes of a text, in sequence."""
    text = _prepared(text)
    found: list[Lexeme] = []
    end = 0
    for match in _LEXEME.finditer(text):
        group = match.lastgroup if match.lastgroup != "suffix" else "number"
        whole, suffix = match[0], match["suffix"] or ""
        gap = text[end : match.start()]
        found.append(Lexeme(group=str(group), text=whole, suffix=suffix, gap=gap, low=folded(whole)))
        end = match.end()
    return found
