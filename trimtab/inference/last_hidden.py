"""Final-layer hidden state at the last token of each prompt, for classification and reward heads; a common prefix is
computed once.

Shapes: N tokens of the flat row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trimtab.inference.attention_layouts import PromptPart, prefill_layout
from trimtab.inference.kv_cache import KVCache, Prefix, PrefixRef
from trimtab.inference.label_scoring import bounded_runs, shared_prefix
from trimtab.model.load import Base
from trimtab.model.threads import limit_to_free_cores

ROW_TOKENS = 2048  # tokens of one pass over several prompts


@torch.inference_mode()
def last_hidden_states(base: Base, prompts: Sequence[tuple[int, ...]], *, pinned: Prefix | None = None) -> Tensor:
    """Return the last hidden state of each prompt, `[prompts, D]`, in the order of the prompts.

    Prompts are token ids, none empty. `pinned`: a prefix from `prefill_prefix`, used as far as all prompts begin with
    it.
    """
    hidden_PD = torch.empty(len(prompts), base.model.config.hidden_size, dtype=base.model.dtype, device=base.device)
    if prompts:
        prefix = shared_prefix(base, prompts, pinned)
        before = len(prefix) if prefix else 0
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        for places in bounded_runs(order, [len(prompts[place]) - before for place in order], ROW_TOKENS):
            hidden_PD[places] = _last_hidden(base, [prompts[place][before:] for place in places], prefix)
    return hidden_PD


@limit_to_free_cores()
def _last_hidden(base: Base, new_ids: Sequence[tuple[int, ...]], prefix: Prefix | None) -> Tensor:
    prefix_ref = PrefixRef(prefix=prefix, length=len(prefix)) if prefix else None
    parts = [PromptPart(start=0, end=len(ids), length=len(ids), prefix_ref=prefix_ref) for ids in new_ids]
    layout = prefill_layout(KVCache(), 0, parts, base.device)
    ids_N = torch.tensor([token for ids in new_ids for token in ids], device=base.device)
    hidden_ND = base.hidden(ids_N, layout.positions_N, layout)
    return hidden_ND[torch.tensor(layout.tokens.counts).cumsum(0).to(base.device) - 1]
