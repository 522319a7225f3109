"""Little is spent on timing tiny models; the pages of a cluster's processes are told where the package is."""

from patience import no_patience, timed_once

__all__ = ["no_patience", "timed_once"]
