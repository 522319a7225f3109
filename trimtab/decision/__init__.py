"""Decision: from scores to costs over the horizon, the verdict and its sensitivity; pure, without models or files."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.results import ArmResult, Usage, Verdict
    from trimtab.base.task import Task
    from trimtab.decision.cost import cost_of
    from trimtab.decision.evidence import Evidence, evidence_of
    from trimtab.decision.verdict import decide
    from trimtab.measurement.evaluate import evaluate_prompts
    from trimtab.measurement.figures import score_estimate
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.results": ("ArmResult", "Usage", "Verdict"),
            "trimtab.base.task": ("Task",),
            "trimtab.decision.cost": ("cost_of",),
            "trimtab.decision.evidence": ("Evidence", "evidence_of"),
            "trimtab.decision.verdict": ("decide",),
            "trimtab.measurement.evaluate": ("evaluate_prompts",),
            "trimtab.measurement.figures": ("score_estimate",),
        },
    )

__all__ = [
    "ArmResult",
    "Evidence",
    "Task",
    "Usage",
    "Verdict",
    "cost_of",
    "decide",
    "evaluate_prompts",
    "evidence_of",
    "score_estimate",
]
