"""When a row is from: an ISO date or time, or a plain number (a year, seconds since 1970), kept as the text it is written in."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

MONTH = re.compile(r"\d{4}-\d\d")


def is_number(text: str) -> bool:
    """True if a time is a plain number, and no date."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def moment(text: str) -> float:
    """A time as a number, to be compared with others of its kind: of a date seconds since 1970 (UTC where no zone is given).

    Raises ValueError for text that is neither a finite number nor an ISO date (2026-03, 2026-03-01) or time (2026-03-01T08:30).
    """
    if is_number(text):
        return float(text)
    found = datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
