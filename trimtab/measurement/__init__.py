"""Measurement: scores of answers with their intervals, paired comparisons, corrections and power."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Answer
    from trimtab.base.results import Estimate
    from trimtab.measurement.evaluate import evaluate_prompts, score_text
    from trimtab.measurement.figures import score_estimate
    from trimtab.measurement.power import items_for_difference, smallest_difference
    from trimtab.measurement.statistics import Difference, compare_paired, estimate, holm, p_noninferior, p_reaches
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.records": ("Answer",),
            "trimtab.base.results": ("Estimate",),
            "trimtab.measurement.evaluate": ("evaluate_prompts", "score_text"),
            "trimtab.measurement.figures": ("score_estimate",),
            "trimtab.measurement.power": ("items_for_difference", "smallest_difference"),
            "trimtab.measurement.statistics": (
                "Difference",
                "compare_paired",
                "estimate",
                "holm",
                "p_noninferior",
                "p_reaches",
            ),
        },
    )

__all__ = [
    "Answer",
    "Difference",
    "Estimate",
    "compare_paired",
    "estimate",
    "evaluate_prompts",
    "holm",
    "items_for_difference",
    "p_noninferior",
    "p_reaches",
    "score_estimate",
    "score_text",
    "smallest_difference",
]
