"""Inference: generates answers from prompts, freely or under a constraint, and scores labels, by a local or a remote
model.
"""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Generation as Generation
    from trimtab.inference.constraints import Constraint as Constraint
    from trimtab.inference.engine import Engine as Engine
    from trimtab.inference.engine import generate_texts as generate_texts
    from trimtab.inference.label_scoring import LabelRequest as LabelRequest
    from trimtab.inference.label_scoring import choose_labels as choose_labels
    from trimtab.inference.label_scoring import label_probabilities as label_probabilities
    from trimtab.inference.label_scoring import score_labels as score_labels
    from trimtab.inference.quote import QuoteConstraint as QuoteConstraint
    from trimtab.inference.request import Completion as Completion
    from trimtab.inference.request import Request as Request
    from trimtab.inference.sampling import Sampling as Sampling
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
