"""Little is spent on timing tiny models and on waiting for endpoints."""

from patience import all_alone, no_patience

__all__ = ["all_alone", "no_patience"]
