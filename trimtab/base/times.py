"""Times of rows: an ISO date or time, or a plain number (a year, seconds since 1970), kept as written."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

MONTH = re.compile(r"\d{4}-\d\d")


def is_number(text: str) -> bool:
    """True if a time is a plain number, not a date."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def moment(text: str) -> float:
    """Return a time as a number for comparison with others of its kind: of a date, seconds since 1970.

    Raises ValueError for text that is neither a finite number nor an ISO date (2026-03, 2026-03-01) or time
    (2026-03-01T08:30).
    """
    if is_number(text):
        return float(text)
    time = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
