"""Inference: generates answers from prompts, freely or under a constraint, and scores labels, by a local or a remote
model.
"""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Generation
    from trimtab.inference.constraints import Constraint
    from trimtab.inference.engine import Engine, generate_texts
    from trimtab.inference.label_scoring import LabelRequest, choose_labels, label_probabilities, score_labels
    from trimtab.inference.quote import QuoteConstraint
    from trimtab.inference.request import Completion, Request
    from trimtab.inference.sampling import Sampling
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.records": ("Generation",),
            "trimtab.inference.constraints": ("Constraint",),
            "trimtab.inference.engine": ("Engine", "generate_texts"),
            "trimtab.inference.label_scoring": ("LabelRequest", "choose_labels", "label_probabilities", "score_labels"),
            "trimtab.inference.quote": ("QuoteConstraint",),
            "trimtab.inference.request": ("Completion", "Request"),
            "trimtab.inference.sampling": ("Sampling",),
        },
    )

__all__ = [
    "Completion",
    "Constraint",
    "Engine",
    "Generation",
    "LabelRequest",
    "QuoteConstraint",
    "Request",
    "Sampling",
    "choose_labels",
    "generate_texts",
    "label_probabilities",
    "score_labels",
]
