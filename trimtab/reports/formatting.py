"""How a report writes numbers, names and long texts: one way for each, on the page and in Markdown."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
DASH = "–"  # not measured, or does not apply


def replace_unprintable(text: str) -> str:
    """`text` without the characters that XML forbids; each becomes U+FFFD."""
    return UNPRINTABLE.sub("\ufffd", text)


def shorten(text: str, length: int = 600) -> str:
    """At most `length` characters of `text`, saying how many were left out.

    The kept part is isolated (U+2068, U+2069), or a change of writing direction in it would turn around what is said of it.
    """
    if len(text) <= length:
        return text
    return f"\u2068{text[:length]}\u2069 … ({len(text) - length:,} more characters)"


def elide_middle(name: str, length: int = 24) -> str:
    """A name of at most `length` characters: of a longer one the ends, which tell variants apart."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def format_number(value: float) -> str:
    """A number of unknown kind with four significant digits, thousands separated."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_score(value: float) -> str:
    """A score with three digits after the point."""
    return f"{value:.3f}"


def format_interval(low: float, high: float) -> str:
    """The interval of a score: `0.771–0.849`."""
    return f"{format_score(low)}–{format_score(high)}"


def format_signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def format_difference_interval(low: float, high: float) -> str:
    """The interval of a difference: `+0.021 to +0.080`."""
    return f"{format_signed(low)} to {format_signed(high)}"


def format_p(p: float) -> str:
    """A p-value as `p = 0.012` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else "p > 0.999" if p > 0.999 else f"p = {p:.3f}"


def format_seconds(value: float) -> str:
    """A duration in the unit that reads best."""
    if 0 < value < 1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.2g} ms"
    if value < 120:
        return f"{value:.1f} s" if value else "0 s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def format_bytes(number: float) -> str:
    """Bytes in the unit that reads best (decimal)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f} B"


def format_memory(megabytes: float) -> str:
    """An amount of memory, in MB: those that stand beside each other are compared."""
    return f"{megabytes:,.0f} MB"


def format_money(value: float, currency: str) -> str:
    """An amount in `currency`; three-letter codes follow the number, machine seconds become a duration."""
    if "second" in currency:
        return format_seconds(value)
    if 0 < abs(value) < 0.005:
        return f"under 0.01 {currency}"
    return f"{value:,.0f} {currency}" if abs(value) >= 100 else f"{value:,.2f} {currency}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 seed`, `3 seeds`, `1,200 rows`."""
    return f"{number:,} {one if number == 1 else many or (one + 'es' if one.endswith('s') else one + 's')}"


def as_sentence(text: str) -> str:
    """`text` as a sentence: a capital first, one full stop last."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
