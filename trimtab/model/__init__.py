"""Models: resolves, loads, accelerates and adapts them; re-exports the prompt encoder of `data/prompts.py`."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Example, Message
    from trimtab.data.prompts import ChatEncoder, build_prompt
    from trimtab.model.adapters.apply import attach, detach, load_adapter, merged, save_adapter
    from trimtab.model.catalog import resolve
    from trimtab.model.fast.patch import accelerate, decelerate
    from trimtab.model.load import Base, load_base
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.records": ("Example", "Message"),
            "trimtab.data.prompts": ("ChatEncoder", "build_prompt"),
            "trimtab.model.adapters.apply": ("attach", "detach", "load_adapter", "merged", "save_adapter"),
            "trimtab.model.catalog": ("resolve",),
            "trimtab.model.fast.patch": ("accelerate", "decelerate"),
            "trimtab.model.load": ("Base", "load_base"),
        },
    )

__all__ = [
    "Base",
    "ChatEncoder",
    "Example",
    "Message",
    "accelerate",
    "attach",
    "build_prompt",
    "decelerate",
    "detach",
    "load_adapter",
    "load_base",
    "merged",
    "resolve",
    "save_adapter",
]
