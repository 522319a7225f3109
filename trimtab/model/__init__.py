"""Models: resolves, loads, accelerates and adapts them; re-exports the prompt encoder of `data/prompts.py`."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Example as Example
    from trimtab.base.records import Message as Message
    from trimtab.data.prompts import ChatEncoder as ChatEncoder
    from trimtab.data.prompts import build_prompt as build_prompt
    from trimtab.model.adapters.apply import attach as attach
    from trimtab.model.adapters.apply import detach as detach
    from trimtab.model.adapters.apply import load_adapter as load_adapter
    from trimtab.model.adapters.apply import merged as merged
    from trimtab.model.adapters.apply import save_adapter as save_adapter
    from trimtab.model.catalog import resolve as resolve
    from trimtab.model.fast.patch import accelerate as accelerate
    from trimtab.model.fast.patch import decelerate as decelerate
    from trimtab.model.load import Base as Base
    from trimtab.model.load import load_base as load_base
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
