"""Decision: from scores to costs over the horizon, the verdict and its sensitivity; pure, without models or files."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.results import ArmResult as ArmResult
    from trimtab.base.results import Usage as Usage
    from trimtab.base.results import Verdict as Verdict
    from trimtab.base.task import Task as Task
    from trimtab.decision.cost import cost_of as cost_of
    from trimtab.decision.evidence import Evidence as Evidence
    from trimtab.decision.evidence import evidence_of as evidence_of
    from trimtab.decision.verdict import decide as decide
    from trimtab.measurement.evaluate import evaluate_prompts as evaluate_prompts
    from trimtab.measurement.figures import score_estimate as score_estimate
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
