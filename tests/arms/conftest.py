"""Little is spent on timing tiny models and on waiting for endpoints."""

from patience import all_alone, no_patience, timed_once

__all__ = ["all_alone", "no_patience", "timed_once"]
