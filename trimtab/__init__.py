"""Trimtab measures which is the lightest approach that specialises a language model well enough, and builds it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trimtab.base.lazy import lazy_names
from trimtab.base.version import __version__ as __version__

if TYPE_CHECKING:  # public names; plugins add theirs (`base/plugins.py`)
    from trimtab.base.config import ApiTable as ApiTable
    from trimtab.base.config import ArmTable as ArmTable
    from trimtab.base.config import BaseTable as BaseTable
    from trimtab.base.config import ChangeTable as ChangeTable
    from trimtab.base.config import CostTable as CostTable
    from trimtab.base.config import HourPrice as HourPrice
    from trimtab.base.config import LabelPrice as LabelPrice
    from trimtab.base.config import RewardTable as RewardTable
    from trimtab.base.config import SplitTable as SplitTable
    from trimtab.base.config import TargetTable as TargetTable
    from trimtab.base.config import TeacherTable as TeacherTable
    from trimtab.base.config import TokenPrice as TokenPrice
    from trimtab.base.errors import TrimtabError as TrimtabError
    from trimtab.base.task import Task as Task
    from trimtab.base.task import load_task as load_task
    from trimtab.model.catalog import pull as pull
    from trimtab.studies.ask import ask as ask
    from trimtab.studies.audit import audit as audit
    from trimtab.studies.check import check as check
    from trimtab.studies.compare import compare as compare
    from trimtab.studies.demo import demo as demo
    from trimtab.studies.doctor import doctor as doctor
    from trimtab.studies.eval import eval as eval
    from trimtab.studies.export import export as export
    from trimtab.studies.init import init as init
    from trimtab.studies.open_study import open_study as open_study
    from trimtab.studies.questions import questions as questions
    from trimtab.studies.runs import runs as runs
    from trimtab.studies.study import study as study
    from trimtab.studies.train import train as train

# From 5.25 on, transformers replaces layers by kernels of the hub: code and roundings that nobody here has measured.
os.environ.setdefault("USE_HUB_KERNELS", "NO")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, when huggingface_hub is first imported
# read once, when torch is first imported: a thread that spins long at a barrier takes the core from the awaited one
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# read at the first product: the usual 1,024 prepared products hold half a gigabyte, and are no faster
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # torch's own over the same products

_core_name, _, __all__ = lazy_names(__name__, __file__)


def __dir__() -> list[str]:
    """Return the public names alone, whether already used or not."""
    from trimtab.base.plugins import plugin_names

    return sorted([*__all__, *plugin_names("names"), "__version__"])


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import trimtab` stays light."""
    if name in __all__ or name.startswith("_"):
        return _core_name(name)
    from trimtab.base.plugins import plugin, plugin_names

    return plugin("names", name, f"trimtab.{name}") if name in plugin_names("names") else _core_name(name)
