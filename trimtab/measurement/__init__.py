"""Measurement: scores of answers with their intervals, paired comparisons, corrections and power."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Answer as Answer
    from trimtab.base.results import Estimate as Estimate
    from trimtab.measurement.evaluate import evaluate_prompts as evaluate_prompts
    from trimtab.measurement.evaluate import score_text as score_text
    from trimtab.measurement.figures import score_estimate as score_estimate
    from trimtab.measurement.power import items_for_difference as items_for_difference
    from trimtab.measurement.power import smallest_difference as smallest_difference
    from trimtab.measurement.statistics import Difference as Difference
    from trimtab.measurement.statistics import compare_paired as compare_paired
    from trimtab.measurement.statistics import estimate as estimate
    from trimtab.measurement.statistics import holm as holm
    from trimtab.measurement.statistics import p_noninferior as p_noninferior
    from trimtab.measurement.statistics import p_reaches as p_reaches
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
