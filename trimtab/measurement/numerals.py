"""Numbers as canonical decimals, and the words for numbers, units, months and weekdays in English, German, French and
Spanish: folded, so without accents."""

from __future__ import annotations

import re
from collections.abc import Mapping


def words(text: str) -> tuple[str, ...]:
    """Return the words of a list that is written as one text."""
    return tuple(text.split())


def _numbered(*lists: str, start: int) -> dict[str, int]:
    """Return the number of each word of several lists, counted from `start` in each; `_` stands for a word that another
    list has."""
    return {word: number for text in lists for number, word in enumerate(words(text), start) if word != "_"}


SPELLED: Mapping[str, int] = _numbered(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    start=0,
) | _numbered(
    "zwei drei vier funf sechs sieben acht neun zehn _ zwolf",
    "deux trois quatre cinq _ _ huit neuf dix onze douze",
    "dos tres cuatro cinco seis siete ocho nueve diez _ doce",
    start=2,
)
_DECADES = words("twenty thirty forty fifty sixty seventy eighty ninety")
TENS: Mapping[str, int] = {
    word: 10 * value
    for word, value in _numbered(
        " ".join(_DECADES),
        "zwanzig dreissig vierzig funfzig",
        "vingt trente quarante cinquante",
        "veinte treinta cuarenta",
        start=2,
    ).items()
}
SCALES: Mapping[str, int] = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9}
"""The powers of ten of number words."""
ORDINALS: Mapping[str, int] = _numbered(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth",
    start=1,
) | {f"{word[:-1]}ieth": TENS[word] for word in _DECADES}
_MONTHS = words("january february march april may june july august september october november december")
MONTHS: Mapping[str, int] = {
    **{name: number for number, name in enumerate(_MONTHS, start=1)},
    **{name[:3]: number for number, name in enumerate(_MONTHS, start=1) if name not in ("march", "may")},
    "sept": 9,
}
MONTHS_OF_DATES: Mapping[str, int] = {**MONTHS} | _numbered(
    "januar februar marz april mai juni juli august september oktober november dezember",
    "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    start=1,
)
"""Of a month after a day or before a year, where it is no planet and nobody's name."""
_DAYS = words("monday tuesday wednesday thursday friday saturday sunday")
WEEKDAYS: Mapping[str, str] = {form: day for day in _DAYS for form in (day, f"{day}s")}
_UNITS = (
    "millisecond milliseconds ms",
    "second seconds sec secs s sekunde sekunden seconde secondes segundo segundos",
    "minute minutes min mins minuten minuto minutos",
    "hour hours hr hrs h stunde stunden heure heures hora horas",
    "day days tag tage tagen jour jours dia dias",
    "week weeks woche wochen semaine semaines semana semanas",
    "month months monat monate monaten mois mes meses",
    "year years yr yrs jahr jahre jahren ans annee annees ano anos",
    "euro euros eur",
    "dollar dollars usd",
    "pound pounds gbp",
    "yen jpy",
    "yuan cny rmb",
    "franc francs chf",
    "cent cents",
    "percent pct prozent",
    "kilometre kilometres kilometer kilometers km",
    "metre metres meter meters m",
    "centimetre centimetres centimeter centimeters cm",
    "millimetre millimetres millimeter millimeters mm",
    "mile miles",
    "litre litres liter liters l",
    "millilitre millilitres milliliter milliliters ml",
    "tonne tonnes t",
    "kilogram kilograms kilo kilos kg",
    "gram grams g",
    "milligram milligrams mg",
    "foot feet ft",
    "inch inches",
    "ounce ounces oz",
    "hectare hectares ha",
    "watt watts w",
    "kilowatt kilowatts kw",
    "millibar millibars mbar",
    "kilobyte kilobytes kb",
    "megabyte megabytes mb",
    "gigabyte gigabytes gb",
    "terabyte terabytes tb",
    "degree degrees grad grados degres",
)
UNITS: Mapping[str, str] = {form: forms.split()[0] for forms in _UNITS for form in forms.split()}
_LEAST = {
    "millisecond": {
        "millisecond": 1,
        "second": 1000,
        "minute": 60_000,
        "hour": 3_600_000,
        "day": 86_400_000,
        "week": 604_800_000,
    },
    "month": {"month": 1, "year": 12},
    "millimetre": {"millimetre": 1, "centimetre": 10, "metre": 1000, "kilometre": 1_000_000},
    "milligram": {"milligram": 1, "gram": 1000, "kilogram": 1_000_000, "tonne": 1_000_000_000},
    "watt": {"watt": 1, "kilowatt": 1000},
    "inch": {"inch": 1, "foot": 12},
    "millilitre": {"millilitre": 1, "litre": 1000},
}
CONVERTED: Mapping[str, tuple[str, int]] = {
    unit: (least, factor) for least, units in _LEAST.items() for unit, factor in units.items()
}
"""Of a unit the least of its kind, and how many of that it is."""
CURRENCY_CODES = frozenset(("eur", "usd", "gbp", "jpy", "chf"))

_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:([, '’])[0-9]{3})(?:\1[0-9]{3})*(?:\.[0-9]+)?")
_DOTTED = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}|[1-9][0-9]{0,2}(?:[. ][0-9]{3})+,[0-9]+")
_POINT = re.compile(r"[0-9]+\.[0-9]+|[0-9]+,[0-9]{1,2}|0,[0-9]+")


def canonical(number: str) -> str:
    """Return digits with at most one point, without redundant zeros: `007.50` is `7.5`."""
    whole, _, part = number.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def shifted(number: str, power: int) -> str:
    """Return a canonical number times a power of ten."""
    whole, _, part = number.partition(".")
    return canonical(f"{whole}{part[:power].ljust(power, '0')}.{part[power:]}")


def numbers_in(digits: str) -> list[str]:
    """Return the canonical numbers in a run of digits and marks: `1,350` is 1350, `1.5` and `1,5` are 1.5, `7,8,9` are
    three.

    Where English and continental writing differ, English is meant: `1.500` is 1.5. A number that begins with a zero
    and has no point keeps it (`0800`). Empty for what is no number, such as `1.2.3`.
    """
    if digits.isdigit():
        return [digits]
    if _THOUSANDS.fullmatch(digits):
        return [canonical(re.sub(r"[, '’]", "", digits))]
    if _DOTTED.fullmatch(digits):
        return [canonical(re.sub(r"[. ]", "", digits).replace(",", "."))]
    if _POINT.fullmatch(digits):
        return [canonical(digits.replace(",", "."))]
    parts = re.split(r"[ ']" if re.search(r"[ '’]", digits) else ",", digits.replace("’", "'"))
    if len(parts) == 1:
        return []
    found = [number for part in parts for number in _whole(part)]
    return found if len(found) >= len(parts) else []


def _whole(part: str) -> list[str]:
    if part.isdigit():
        return [part]
    if _THOUSANDS.fullmatch(part) or _DOTTED.fullmatch(part) or _POINT.fullmatch(part):
        return numbers_in(part)
    return [piece for piece in re.split(r"[.,]", part) if piece]
