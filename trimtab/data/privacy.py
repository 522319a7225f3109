"""Detects private data in the rows before training; each kind is validated, so that ordinary numbers do not count."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from trimtab.base.records import Example
from trimtab.data.duplicates import row_location

FindingKind = Literal["email", "iban", "card", "us_ssn", "ipv4", "phone"]
_SHOWN = 5
_MIN_PHONE_DIGITS = 9  # shorter phone numbers look like times, years and prices
_ANY_DIGIT_OR_AT = re.compile(r"[\d@]")  # every kind holds one of these

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_IPV4 = re.compile(r"(?<![\w.])(?<!version )\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_PHONE = re.compile(
    r"""(?<![\w+.])(?<!\d[ -])(?:
        \+[1-9](?:[ ().-]{0,2}\d){7,14}                             # international: +44 20 7946 0958
      | \(\d{2,5}\)[ -]?\d(?:[ -]?\d){5,8}                          # area code in brackets: (555) 123-4567
      | \d{3}[ .-]\d{3}[ .-]\d{4}                                   # 555-123-4567
      | 0[1-9]\d{0,3}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}             # with a trunk zero: 020 7946 0958
      | (?i:(?<=call\ )|(?<=phone\ )|(?<=tel\ )|(?<=mobile\ )|(?<=text\ ))0\d{9,10}
    )(?![\w-])""",
    re.VERBOSE,
)
_ISSUERS = re.compile(  # Visa, Mastercard, American Express, Discover, Diners Club, JCB
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)
_EUROPE = ("GB", "DE", "FR", "IT", "ES", "NL", "BE", "AT", "CH", "SE", "TR")
_REGIONS = (*_EUROPE, "AU", "JP", "KR", "CN", "IN", "ID", "ZA", "BR", "MX")
"""Regions whose phone numbers are recognised without a country code, besides North America."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The private data of one kind: number of matches, number of rows, and the first rows (file:line)."""

    kind: FindingKind
    count: int
    rows: int
    places: tuple[str, ...]


def private_kinds(texts: Iterable[str]) -> tuple[FindingKind, ...]:
    """Return the kind of each piece of private data in the texts; the matches themselves are not kept."""
    return tuple(kind for text in texts for kind, _ in find_private(text))


def count_private(rows: Iterable[tuple[Example, Sequence[FindingKind]]]) -> tuple[Finding, ...]:
    """Count the private data of each kind, over rows with the kinds found in them."""
    counts: dict[FindingKind, int] = {}
    places: dict[FindingKind, list[str]] = {}
    for example, found in rows:
        for kind in found:
            counts[kind] = counts.get(kind, 0) + 1
        for kind in sorted(set(found)):
            places.setdefault(kind, []).append(row_location(example))
    return tuple(
        Finding(kind, counts[kind], len(places[kind]), tuple(places[kind][:_SHOWN]))
        for kind, _, _ in _KINDS
        if kind in counts
    )


def find_private(text: str) -> list[tuple[FindingKind, str]]:
    """Return the private data in a text with its kind; each stretch of text counts once."""
    found: list[tuple[FindingKind, str]] = []
    for kind, pattern, valid in _KINDS if _ANY_DIGIT_OR_AT.search(text) else ():
        matches = [match for match in pattern.finditer(text) if valid(match.group())]
        found += [(kind, match.group()) for match in matches]
        edges = [0, *(edge for match in matches for edge in match.span()), len(text)]
        rest = (text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
        text = "\0".join(rest) if matches else text  # joined once, as joining match by match would take quadratic time
    return found


def mask_private(text: str) -> str:
    """Return the text with each piece of private data replaced by its kind, as in `[email]`. Names and addresses
    stay."""
    for kind, pattern, valid in _KINDS if _ANY_DIGIT_OR_AT.search(text) else ():
        text = pattern.sub(_replacement(kind, valid), text)
    return text


def _replacement(kind: FindingKind, valid: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    return lambda match: f"[{kind}]" if valid(match.group()) else match.group()


def _is_card(text: str) -> bool:
    from stdnum import luhn

    digits = re.sub(r"[ -]", "", text)
    return _ISSUERS.fullmatch(digits) is not None and luhn.is_valid(digits)


def _is_iban(text: str) -> bool:
    """True if check digits, length and structure fit the country; national rules, whose code is loaded by name, are not
    used."""
    from stdnum import iban

    return any(iban.is_valid(head, check_country=False) for head in _prefixes(text))


def _prefixes(text: str) -> Iterator[str]:
    """Yield the text, and the text with trailing blocks removed: a word in capitals may follow an IBAN."""
    while len(text.replace(" ", "")) >= 15:
        yield text
        text = text.rpartition(" ")[0]


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def _is_phone(text: str) -> bool:
    """True if the numbering plan of the country code accepts it; without one that of North America or of a listed
    region.

    With a country code and in North America a number must only be possible: fictional numbers (555) stand for real
    ones.
    """
    if sum(character.isdigit() for character in text) < _MIN_PHONE_DIGITS:
        return False
    import phonenumbers

    def parses(region: str | None, accepts: Callable[[phonenumbers.PhoneNumber], bool]) -> bool:
        try:
            return accepts(phonenumbers.parse(text, region))
        except phonenumbers.NumberParseException:
            return False

    if text.startswith("+"):
        return parses(None, phonenumbers.is_possible_number)
    return parses("US", phonenumbers.is_possible_number) or any(
        parses(region, phonenumbers.is_valid_number) for region in _REGIONS
    )


def _always(_: str) -> bool:
    return True


_KINDS: tuple[tuple[FindingKind, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("email", _EMAIL, _always),
    ("iban", _IBAN, _is_iban),
    ("card", _CARD, _is_card),
    ("us_ssn", _SSN, _always),
    ("ipv4", _IPV4, _is_public),
    ("phone", _PHONE, _is_phone),
)
