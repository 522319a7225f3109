"""Little is spent on timing tiny models and on waiting for endpoints."""

from patience import no_patience, timed_once

__all__ = ["no_patience", "timed_once"]
