"""Formats numbers, names and long texts of a report, in the same way for HTML and Markdown."""

from __future__ import annotations

import re

from trimtab.base.sanitize import visible_directions

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
DASH = "–"  # not measured, or not applicable


def replace_unprintable(text: str) -> str:
    """Return `text` with U+FFFD for each character that XML forbids, and an escape for each direction mark."""
    return UNPRINTABLE.sub("\ufffd", visible_directions(text))


def shorten(text: str, length: int = 600) -> str:
    """Return at most `length` characters of `text`, and how many were left out."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text) - length:,} more characters)"


def elide_middle(name: str, length: int = 24) -> str:
    """Return a name of at most `length` characters; a longer one keeps its ends, which distinguish variants."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"


def format_number(value: float) -> str:
    """Format a number with four significant digits and thousands separators."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def format_score(value: float) -> str:
    """Format a score with three decimals."""
    return f"{value:.3f}"


def format_interval(low: float, high: float) -> str:
    """Format the interval of a score: `0.771–0.849`."""
    return f"{format_score(low)}–{format_score(high)}"


def format_signed(value: float) -> str:
    """Format a difference with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def format_difference_interval(low: float, high: float) -> str:
    """Format the interval of a difference: `+0.021 to +0.080`."""
    return f"{format_signed(low)} to {format_signed(high)}"


def format_p(p: float) -> str:
    """Format a p-value: `p = 0.012` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else "p > 0.999" if p > 0.999 else f"p = {p:.3f}"


def format_seconds(value: float) -> str:
    """Format a duration (seconds) in ms, s, min or h."""
    if 0 < value < 1:
        return f"{value * 1000:.0f} ms" if value >= 0.01 else f"{value * 1000:.2g} ms"
    if value < 120:
        return f"{value:.1f} s" if value else "0 s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def format_bytes(number: float) -> str:
    """Format a number of bytes in a decimal unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f} B"


def format_memory(megabytes: float) -> str:
    """Format memory, always in MB, so that figures can be compared."""
    return f"{megabytes:,.0f} MB"


def format_money(value: float, currency: str) -> str:
    """Format an amount in `currency`; machine seconds are formatted as a duration."""
    if "second" in currency:
        return format_seconds(value)
    if 0 < abs(value) < 0.005:
        return f"under 0.01 {currency}"
    return f"{value:,.0f} {currency}" if abs(value) >= 100 else f"{value:,.2f} {currency}"


def plural(number: int, word: str, many: str | None = None) -> str:
    """Format a count: `1 seed`, `3 seeds`, `1,200 rows`."""
    return f"{number:,} {word if number == 1 else many or (word + 'es' if word.endswith('s') else word + 's')}"


def as_sentence(text: str) -> str:
    """Return `text` with a capital letter first and one full stop last."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
