"""Trimtab measures which is the lightest approach that specialises a language model well enough, and builds it."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.base.config import (
        ApiTable,
        ArmTable,
        BaseTable,
        ChangeTable,
        CostTable,
        DriftTable,
        HourPrice,
        LabelPrice,
        RewardTable,
        SplitTable,
        TargetTable,
        TeacherTable,
        TokenPrice,
        TrafficTable,
        UpkeepTable,
    )
    from trimtab.base.errors import TrimtabError
    from trimtab.base.task import Task, load_task
    from trimtab.cli.canary_functions import canary_start, canary_status, canary_stop
    from trimtab.model.catalog import pull
    from trimtab.publishing.audit import surface_audit
    from trimtab.publishing.coverage import surface_coverage
    from trimtab.publishing.plan import surface_plan
    from trimtab.publishing.trial import surface_try
    from trimtab.serving.feedback_export import feedback_export
    from trimtab.serving.options import ServerOptions
    from trimtab.serving.serve import serve
    from trimtab.studies.ask import ask
    from trimtab.studies.audit import audit
    from trimtab.studies.check import check
    from trimtab.studies.compare import compare
    from trimtab.studies.demo import demo
    from trimtab.studies.doctor import doctor
    from trimtab.studies.eval import eval
    from trimtab.studies.export import export
    from trimtab.studies.init import init
    from trimtab.studies.open_study import open_study
    from trimtab.studies.runs import runs
    from trimtab.studies.study import study
    from trimtab.studies.train import train
    from trimtab.upkeep.drift import drift
    from trimtab.upkeep.labels import label
    from trimtab.upkeep.refresh import refresh
    from trimtab.upkeep.registry import registry

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, when huggingface_hub is first imported
# read once, when torch is first imported: a thread that spins long at a barrier takes the core from the awaited one
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# read at the first product: the usual 1,024 prepared products hold half a gigabyte, and are no faster
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # torch's own over the same products

__version__ = "0.2.0"
__all__ = [
    "ApiTable",
    "ArmTable",
    "BaseTable",
    "ChangeTable",
    "CostTable",
    "DriftTable",
    "HourPrice",
    "LabelPrice",
    "RewardTable",
    "ServerOptions",
    "SplitTable",
    "TargetTable",
    "Task",
    "TeacherTable",
    "TokenPrice",
    "TrafficTable",
    "TrimtabError",
    "UpkeepTable",
    "ask",
    "audit",
    "canary_start",
    "canary_status",
    "canary_stop",
    "check",
    "compare",
    "demo",
    "doctor",
    "drift",
    "eval",
    "export",
    "feedback_export",
    "init",
    "label",
    "load_task",
    "open_study",
    "pull",
    "refresh",
    "registry",
    "runs",
    "serve",
    "study",
    "surface_audit",
    "surface_coverage",
    "surface_plan",
    "surface_try",
    "train",
]

_TABLES = ("Api", "Arm", "Base", "Cost", "Change", "Drift", "Reward", "Split", "Target", "Teacher", "Traffic", "Upkeep")
_HOME = {
    "HourPrice": "trimtab.base.config",
    "LabelPrice": "trimtab.base.config",
    "ServerOptions": "trimtab.serving.options",
    "Task": "trimtab.base.task",
    "TokenPrice": "trimtab.base.config",
    "TrimtabError": "trimtab.base.errors",
    "canary_start": "trimtab.cli.canary_functions",
    "canary_status": "trimtab.cli.canary_functions",
    "canary_stop": "trimtab.cli.canary_functions",
    "drift": "trimtab.upkeep.drift",
    "feedback_export": "trimtab.serving.feedback_export",
    "label": "trimtab.upkeep.labels",
    "load_task": "trimtab.base.task",
    "pull": "trimtab.model.catalog",
    "refresh": "trimtab.upkeep.refresh",
    "registry": "trimtab.upkeep.registry",
    "serve": "trimtab.serving.serve",
    "surface_audit": "trimtab.publishing.audit",
    "surface_coverage": "trimtab.publishing.coverage",
    "surface_plan": "trimtab.publishing.plan",
    "surface_try": "trimtab.publishing.trial",
    **{f"{table}Table": "trimtab.base.config" for table in _TABLES},
    **{
        verb: f"trimtab.studies.{verb}"
        for verb in (
            *("ask", "audit", "check", "compare", "demo", "doctor", "eval", "export", "init", "open_study", "runs"),
            *("study", "train"),
        )
    },
}


def __dir__() -> list[str]:
    """Return the public names alone, whether already used or not."""
    return sorted([*__all__, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import trimtab` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
