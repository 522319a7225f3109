"""Activation cache for frozen lower layers: the input of the first trainable layer is computed once per row and reused.

Shapes: N tokens of the flat row, D hidden size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from trimtab.model.fast.partial_forward import first_trainable_layer, hidden_at, layer_input
from trimtab.model.load import Base
from trimtab.training.batch import Batch, TrainingRow, pack_rows

MAX_BYTES = 1_000_000_000  # cached for one objective


def cache_bytes(base: Base, tokens: int) -> int:
    """Return the bytes that the cache takes for `tokens` tokens; 0 if nothing is cached.

    Nothing is cached if all layers are trainable, or if it would exceed MAX_BYTES. The answer depends on sizes alone,
    never on the memory that is free: a resumed run decides as it did before.
    """
    size = 2 if base.model.dtype == torch.bfloat16 else 4
    needed = tokens * base.model.config.hidden_size * size if first_trainable_layer(base.model) else 0
    return needed if needed <= MAX_BYTES else 0


class ActivationCache:
    """Cached hidden states after the frozen layers, for rows that are read repeatedly.

    Such rows come from epochs, search trials and dev evaluations. They are computed in fixed `passes`, each as a whole
    when one of its rows is first needed. So no bit depends on which step needs it first, no state has to be saved, and
    a resumed run computes the same values. Rows are identified by their token ids.
    """

    def __init__(self, passes: Callable[[], Iterable[Sequence[TrainingRow]]]) -> None:
        """`passes` returns, when it is called, which rows are computed together; read no further than the rows fit."""
        self._make_passes = passes
        self._model: Any = None
        self._first = 0
        self._passes: dict[int, Sequence[TrainingRow]] = {}  # by number; without those whose rows earlier ones have
        self._pass_of: dict[tuple[int, ...], int] = {}
        self._cached: dict[
            tuple[int, ...], tuple[Tensor, ...]
        ] = {}  # on CPU, split by the runs of its pass's prefix tree
        self._prepare_lock = Lock()  # passes of a step run in parallel
        self._pass_locks: defaultdict[int, Lock] = defaultdict(Lock)

    def hidden_at_scored(self, base: Base, batch: Batch) -> Tensor:
        """Return the last hidden states `hidden_MD` at a batch's scored positions.

        Runs all layers if a row is not in the cache's passes.
        """
        device = base.device
        scored_M, flat = batch.scored_M.to(device), (batch.ids_N.to(device), batch.positions_N.to(device), batch.layout)
        with self._prepare_lock:
            first = self._prepare(base)
            rows = [batch.tree.row(path) for path in batch.tree.paths] if first else []
            passes = [self._pass_of.get(ids) for ids in rows]
            locks = {number: self._pass_locks[number] for number in passes if number is not None}
        if not rows or None in passes or not self._ensure_cached(base, first, rows, locks):
            return hidden_at(base, scored_M, *flat)
        return hidden_at(base, scored_M, *flat, above=(first, self._assemble(rows, batch).to(device)))

    def _prepare(self, base: Base) -> int:
        """Return the first trainable layer, 0 if nothing can be cached; clears the cache if the model or that layer has
        changed.
        """
        first = first_trainable_layer(base.model)
        if self._model is not base.model or self._first != first:
            self._model, self._first = base.model, first
            self._cached.clear()
            self._number_passes(base, self._make_passes() if first else ())
        return first

    def _number_passes(self, base: Base, passes: Iterable[Sequence[TrainingRow]]) -> None:
        """Note the pass of each row; of none if all together exceed the cache."""
        self._pass_of.clear()
        self._passes.clear()
        tokens = 0
        for number, rows in enumerate(passes):
            new = dict.fromkeys(row.encoded.ids for row in rows if row.encoded.ids not in self._pass_of)
            if not new:
                continue
            self._pass_of.update(dict.fromkeys(new, number))
            self._passes[number] = rows
            tokens += sum(map(len, new))
            if not cache_bytes(base, tokens):
                self._pass_of.clear()
                self._passes.clear()
                return

    def _ensure_cached(
        self, base: Base, first: int, rows: Sequence[tuple[int, ...]], locks: Mapping[int, Lock]
    ) -> bool:
        """Compute the passes that these rows need; False if that is not possible."""
        for number, lock in locks.items():
            with lock:
                wanted = any(ids not in self._cached for ids in rows if self._pass_of.get(ids) == number)
                if wanted and not self._compute_pass(base, first, number):
                    self._pass_of.clear()
        return all(ids in self._cached for ids in rows)

    def _compute_pass(self, base: Base, first: int, number: int) -> bool:
        """Store the input of the first trainable layer for the rows of a pass; False if it is not available."""
        batch = pack_rows(self._passes[number])
        states_ND = layer_input(
            base, first, batch.ids_N.to(base.device), batch.positions_N.to(base.device), batch.layout
        )
        if states_ND is None:
            return False
        runs = torch.split(states_ND.cpu(), batch.layout.lengths)
        for path in batch.tree.paths:
            ids = batch.tree.row(path)
            if self._pass_of.get(ids) == number:  # a row in several passes is always taken from the same one
                self._cached[ids] = tuple(runs[run] for run in path)
        return True

    def _assemble(self, rows: Sequence[tuple[int, ...]], batch: Batch) -> Tensor:
        """Return the cached states of the rows in the token order of a batch, `inputs_ND`."""
        pieces: dict[int, Tensor] = {}
        for ids, path in zip(rows, batch.tree.paths, strict=True):
            row_TD = torch.cat(self._cached[ids])
            pieces |= zip(path, torch.split(row_TD, [batch.layout.lengths[run] for run in path]), strict=True)
        return torch.cat([pieces[run] for run in range(len(batch.tree.runs))])
