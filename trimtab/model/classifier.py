"""A model that sorts into labels, as transformers and PEFT load it: what moved, the head on the last token, and the labels' names.

Shapes: C labels, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_object, remove_cut, write_json
from trimtab.base.visible import said
from trimtab.model.adapters import (
    ADAPTER_FILE,
    MOVED_FILE,
    SCORE,
    SCORE_IN_PEFT,
    WHOLE_FILE,
    save_adapter,
    write_tensors,
)
from trimtab.model.load import Base
from trimtab.model.peft_format import CONFIG_FILE

LABELS_FILE = "config.json"
FORMER_FILE = "head.safetensors"  # of versions whose head had a bias, which no sequence classifier of transformers has
_DAMAGED = "restore it from a copy, or train again"


def save_classifier(base: Base, score_CD: Tensor, labels: Sequence[str], folder: Path) -> None:
    """Write what moved, the head and the labels.

    An adapter becomes a PEFT folder of task type SEQ_CLS with the head in `modules_to_save`, weights that all moved a whole model
    (`model.safetensors`), weights of which some moved `moved.safetensors`, by the names that a sequence classifier of transformers
    gives them. `config.json` beside them is that of the classifier, with the labels in `id2label`.
    """
    for name in (WHOLE_FILE, LABELS_FILE):
        remove_cut(folder, f"{name}.*")
    save_adapter(base, folder)
    head = score_CD.detach().float().cpu().contiguous()
    if (folder / ADAPTER_FILE).is_file():
        write_tensors({**load_file(folder / ADAPTER_FILE), SCORE_IN_PEFT: head}, folder / ADAPTER_FILE)
        settings = read_object(folder / CONFIG_FILE)
        whole = {**settings, "task_type": "SEQ_CLS", "modules_to_save": [SCORE.partition(".")[0]]}
        write_json(folder / CONFIG_FILE, whole)
    else:
        _save_weights(base, head, folder)
    write_json(folder / LABELS_FILE, _config(base, labels))


def load_classifier(folder: Path) -> tuple[tuple[str, ...], Tensor]:
    """The labels and the head `score_CD` of a saved classifier.

    Raises MissingError when the folder holds none, InputError when it is damaged or was saved by an earlier version.
    """
    if (folder / FORMER_FILE).is_file():
        raise InputError("is a classification head of an earlier version", "train it again", file=folder / FORMER_FILE)
    file = next((folder / name for name in (ADAPTER_FILE, WHOLE_FILE, MOVED_FILE) if (folder / name).is_file()), None)
    if file is None or not (folder / LABELS_FILE).is_file():
        raise MissingError(f"{folder}: no classification head; train one first")
    named = read_object(folder / LABELS_FILE, "id2label")["id2label"]
    labels = [named.get(str(number)) for number in range(len(named))] if isinstance(named, dict) else []
    if not labels or not all(isinstance(label, str) for label in labels):
        raise InputError("is damaged (no labels in id2label)", "restore it from a copy", file=folder / LABELS_FILE)
    try:
        with safe_open(file, "pt") as tensors:
            name = next((name for name in (SCORE, SCORE_IN_PEFT) if name in tensors.keys()), None)  # noqa: SIM118 (no mapping)
            score_CD = None if name is None else tensors.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"is damaged ({said(error)})", _DAMAGED, file=file) from None
    if score_CD is None:
        raise MissingError(f"{file}: no classification head ({SCORE}) in it; train one first")
    return tuple(map(str, labels)), score_CD


def _save_weights(base: Base, head: Tensor, folder: Path) -> None:
    """What moved with the head beside it: as a whole model where every weight that a classifier has is among it."""
    moved = load_file(folder / MOVED_FILE)
    body = {name for name, _ in base.model.named_parameters() if name.startswith(f"{base.model.base_model_prefix}.")}
    moved = {name: value for name, value in moved.items() if name in body}  # a classifier has no head over tokens
    if moved.keys() != body:
        write_tensors({**moved, SCORE: head}, folder / MOVED_FILE)
        return
    write_tensors({**moved, SCORE: head}, folder / WHOLE_FILE)
    (folder / MOVED_FILE).unlink()


def _config(base: Base, labels: Sequence[str]) -> dict[str, Any]:
    """The configuration of the classifier: the base's, in the type that it ran in, with the labels and what counts as padding."""
    config = base.model.config
    known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    padding = config.pad_token_id if base.tokenizer is None else base.tokenizer.pad_token_id
    return {
        **config.to_diff_dict(),
        "architectures": [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].__name__] if known else None,
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "pad_token_id": config.pad_token_id if padding is None else padding,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
