"""Forgetting: the loss on general text of a candidate's weights compared with production's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from trimtab.arms.session import Session
from trimtab.base.records import Document, Section
from trimtab.measurement.statistics import t_quantile
from trimtab.model.adapters.apply import load_adapter, merged
from trimtab.training.sft import document_rows, row_losses
from trimtab.upkeep.versions import Forgetting

_TEXT = Path(__file__).with_name("general.txt")


@cache
def general_passages() -> tuple[str, ...]:
    """Return short passages on everyday subjects. In the file an indented line continues the one before it."""
    passages: list[str] = []
    for line in _TEXT.read_text(encoding="utf-8").splitlines():
        if line.startswith(" ") and passages:
            passages[-1] += f"\n{line}"
        else:
            passages.append(line)
    return tuple(passages)


def forgetting(session: Session, candidate: Path, production: Path) -> Forgetting:
    """Compare the losses of general passages under the tuned weights in two folders, as `save_adapter` wrote them for
    the session's base.

    A loss is the mean over a passage's tokens, in nats; the interval is that of the mean paired difference, by t.
    """
    ours, theirs = (_nats_per_token(session, folder) for folder in (candidate, production))
    gaps = ours - theirs
    half = t_quantile(len(gaps) - 1) * float(gaps.std(ddof=1)) / len(gaps) ** 0.5
    mean = float(gaps.mean())
    return Forgetting(
        passages=len(gaps),
        candidate=float(ours.mean()),
        production=float(theirs.mean()),
        difference=mean,
        low=mean - half,
        high=mean + half,
    )


def _nats_per_token(session: Session, adapter: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean loss of each passage, shape [passages]; the base is as published afterwards."""
    base = session.fresh_base()
    load_adapter(base, adapter)
    documents = [
        Document(id=str(number), title="", source="", sections=(Section(path=(), text=text),), digest="")
        for number, text in enumerate(general_passages())
    ]
    rows = document_rows(documents, session.encoder)
    with merged(base.model):
        nats = row_losses(base, rows)
    session.fresh_base()
    return np.array([loss / row.trained_tokens for loss, row in zip(nats, rows, strict=True)])
