"""Changes to the files of a model's folder, as damage or another program makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from trimtab.model.model_files import SINGLE


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the tensors of a model."""
    tensors = load_file(folder / SINGLE)
    edit(tensors)
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def set_in(file: Path, **values: Any) -> None:
    """Set values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
