"""Linear head on the last token, for classifiers and reward models; saved as a PEFT folder, as a transformers
classifier, or (last layers only) by parameter name.

Shapes: M prompts or answers, C labels, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from trimtab.base.errors import InputError, MissingError
from trimtab.base.files import read_object, remove_partial, write_json
from trimtab.base.sanitize import one_line
from trimtab.model import process_group
from trimtab.model.adapters.apply import (
    ADAPTER_FILE,
    FULL_MODEL_FILE,
    HEAD_KEY,
    PEFT_HEAD_KEY,
    TRAINED_FILE,
    save_adapter,
    write_tensors,
)
from trimtab.model.adapters.saved_adapter import CONFIG_FILE
from trimtab.model.load import DTYPES, Base

LABELS_FILE = "config.json"
_INIT_STD = 0.02  # standard deviation of a new head's weights, as in transformers
_RESTORE = "restore it from a copy, or train again"


class ClassificationHead(nn.Module):
    """A float32 linear layer from the hidden size to the labels, in their order.

    Without a bias, like transformers' sequence classifiers: all prompts end in the same tokens, so their hidden states
    have much in common, and weights along that direction act as a bias.
    """

    def __init__(self, labels: Sequence[str], hidden_size: int, *, seed: int = 0) -> None:
        super().__init__()
        self.labels = tuple(labels)
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(_INIT_STD * torch.randn(len(self.labels), hidden_size, generator=generator))

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """Return the scores `logits_MC` in float32."""
        return nn.functional.linear(hidden_MD.float(), self.weight)


def save_head(base: Base, head: ClassificationHead, folder: Path, *, scored_token: int | None = None) -> None:
    """Save what was trained on the base, the head and the labels.

    An adapter becomes a PEFT folder of task type SEQ_CLS with the head in `modules_to_save`; fully trained weights
    become a whole model (`model.safetensors`), partly trained ones `moved.safetensors`, by the parameter names of
    transformers' sequence classifier. `config.json` is the classifier's, with the labels in `id2label`. `scored_token`:
    the token that is scored, if it is always the same; transformers scores the last token that is not padding, so the
    padding token must differ. In a group of processes all must call it, and the first one writes.
    """
    save_adapter(base, folder)
    if not process_group.is_main_process():
        return
    for name in (FULL_MODEL_FILE, LABELS_FILE):
        remove_partial(folder, f"{name}.*")
    score_CD = head.weight.detach().float().cpu().contiguous()
    if (folder / ADAPTER_FILE).is_file():
        write_tensors({**load_file(folder / ADAPTER_FILE), PEFT_HEAD_KEY: score_CD}, folder / ADAPTER_FILE)
        settings = read_object(folder / CONFIG_FILE)
        whole = {**settings, "task_type": "SEQ_CLS", "modules_to_save": [HEAD_KEY.partition(".")[0]]}
        write_json(folder / CONFIG_FILE, whole)
    else:
        _save_weights(base, score_CD, folder)
    write_json(folder / LABELS_FILE, _config(base, head.labels, scored_token))


def load_head(base: Base, folder: Path) -> ClassificationHead:
    """Load a saved head onto the model's device.

    Raises MissingError if the folder holds none, InputError if it is damaged or for another model.
    """
    labels, score_CD = _read(folder)
    head = ClassificationHead(labels, base.model.config.hidden_size)
    if score_CD.shape != head.weight.shape:
        raise InputError(
            f"the classification head does not fit the model and the {len(labels)} labels",
            "use the base model and the labels it was trained with",
            file=folder,
        )
    with torch.no_grad():
        head.weight.copy_(score_CD)
    return head.to(base.device)


def _read(folder: Path) -> tuple[tuple[str, ...], Tensor]:
    """Return the labels and the head `score_CD`."""
    file = next(
        (folder / name for name in (ADAPTER_FILE, FULL_MODEL_FILE, TRAINED_FILE) if (folder / name).is_file()), None
    )
    if file is None or not (folder / LABELS_FILE).is_file():
        raise MissingError(f"{folder}: no classification head; train one first")
    id2label = read_object(folder / LABELS_FILE, "id2label")["id2label"]
    labels = [id2label.get(str(number)) for number in range(len(id2label))] if isinstance(id2label, dict) else []
    if not labels or not all(isinstance(label, str) for label in labels):
        raise InputError("is damaged (no labels in id2label)", "restore it from a copy", file=folder / LABELS_FILE)
    try:
        with safe_open(file, "pt") as tensors:
            name = next((name for name in (HEAD_KEY, PEFT_HEAD_KEY) if name in tensors.keys()), None)  # noqa: SIM118 (no mapping)
            score_CD = None if name is None else tensors.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"is damaged ({one_line(error)})", _RESTORE, file=file) from None
    if score_CD is None:
        raise MissingError(f"{file}: no classification head ({HEAD_KEY}) in it; train one first")
    return tuple(map(str, labels)), score_CD


def _save_weights(base: Base, head: Tensor, folder: Path) -> None:
    """Save the trained weights with the head: as a whole model if they include every weight of a classifier."""
    moved = load_file(folder / TRAINED_FILE)
    body = {name for name, _ in base.model.named_parameters() if name.startswith(f"{base.model.base_model_prefix}.")}
    moved = {name: value for name, value in moved.items() if name in body}  # a classifier has no language model head
    if moved.keys() != body:
        write_tensors({**moved, HEAD_KEY: head}, folder / TRAINED_FILE)
        return
    write_tensors({**moved, HEAD_KEY: head}, folder / FULL_MODEL_FILE)
    (folder / TRAINED_FILE).unlink()


def _config(base: Base, labels: Sequence[str], scored_token: int | None) -> dict[str, Any]:
    """Return the classifier's configuration: the base's, with its dtype, the labels and the padding token."""
    config = base.model.config
    is_known = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    pad_token_id = _pad_token_id(base, scored_token)
    return {
        **config.to_diff_dict(),
        "architectures": [MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)].__name__] if is_known else None,
        "dtype": str(DTYPES[base.precision]).removeprefix("torch."),
        "pad_token_id": pad_token_id,
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _pad_token_id(base: Base, scored_token: int | None) -> int | None:
    """Return the padding token: the tokenizer's, else the model's, else a special one; never `scored_token`. None if
    there is none.
    """
    tokenizer = base.tokenizer
    own = () if tokenizer is None else (tokenizer.pad_token_id,)
    candidates = [*own, base.model.config.pad_token_id]
    if scored_token is not None and tokenizer is not None:
        candidates += tokenizer.all_special_ids
    return next((int(one) for one in candidates if one is not None and one != scored_token), None)
