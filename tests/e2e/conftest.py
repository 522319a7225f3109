"""With the real small model, too, nothing is timed twice."""

from patience import timed_once

__all__ = ["timed_once"]
