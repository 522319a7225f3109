"""A saved adapter's configuration and tensors, not yet trusted, with the checks that methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.base.errors import InputError
from trimtab.base.sanitize import visible

CONFIG_FILE = "adapter_config.json"
PREFIX = "base_model.model."  # before the name of a layer
MAX_ALPHA = 1e6  # far beyond any in use; the scale is alpha over the rank
USE_SAVED_CONFIG = "use the adapter_config.json that was saved with it"


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """`config`: the content of `adapter_config.json`; `tensors`: by PEFT's names; `device`: that of the model.

    The names of the tensors are those of the model's layers when a method reads it; configuration and shapes are not
    checked yet.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    folder: Path
    device: torch.device

    def error(self, problem: str) -> InputError:
        """Return the error for a configuration that its tensors do not confirm."""
        return InputError(problem, USE_SAVED_CONFIG, file=self.folder / CONFIG_FILE)

    def rank(self, part: str) -> int:
        """Return the configured rank `r`. Raises InputError unless the tensors named `part` have it as rows: layers are
        built from it.
        """
        rank = self.config.get("r")
        named = {name: value for name, value in self.tensors.items() if part in name}
        ranks = {value.shape[0] if value.dim() == 2 else 0 for value in named.values()}
        if type(rank) is not int or rank < 1 or ranks != {rank}:
            found = ", ".join(map(str, sorted(ranks)[:3])) or "none"
            raise self.error(f"r is {abbreviated(rank)}, and the tensors are of rank {found}")
        return rank

    def alpha(self, key: str) -> float:
        """Return the configured alpha; raises InputError if it is no number within MAX_ALPHA."""
        alpha = self.config.get(key)
        # the last comparison is False for NaN
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not abs(alpha) <= MAX_ALPHA:
            raise self.error(f"{key} is {abbreviated(alpha)}")
        return float(alpha)


def abbreviated(value: Any) -> str:
    """Return a value of a foreign file as short text; Python refuses to print integers with too many digits."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "an integer of 19 digits or more"
    return visible(repr(value)[:40])
