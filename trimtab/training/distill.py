"""Distillation objective: match the teacher's whole next-token distribution, not only its answers.

Shapes: M scored positions, R of them in one chunk, T of one answer, E the teacher's hidden size, V the student's
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base, softcap
from trimtab.training.activation_cache import MAX_BYTES, ActivationCache
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    first_epoch,
    micro_batches,
    microbatch_rows,
    pack_rows,
    step_rows,
    steps_per_epoch,
    units_tokens,
)
from trimtab.training.losses import Loss, head_log_softmax, kl_from_teacher, scored_hidden
from trimtab.training.parallel import map_microbatches

BLOCK = 4096  # answers that the teacher reads at once: bounds memory, and decides which ones share a pass
LOG_ZERO = -1e4  # log-probability of a token that the teacher lacks: finite, so that 0 times it is 0


@dataclass(frozen=True, kw_only=True)
class DistillBatch(Batch):
    """A batch whose rows are answers of the teacher; `states_ME`: the teacher's last hidden states at the scored
    positions.
    """

    states_ME: Tensor


class Distillation:
    """`KL(teacher || student)` over the vocabulary, averaged over the answer tokens of the whole optimizer step.

    Hinton et al. 2015 (arXiv 1503.02531) at temperature 1, over the teacher's own answers as in Kim & Rush 2016 (arXiv
    1606.07947). The teacher runs once over them: its hidden states are kept, its head computes logits from them chunk
    by chunk, and the rest of it can be freed. If its vocabulary is larger or smaller than the student's, only the
    common tokens are compared, with the teacher's probabilities renormalised.
    """

    def __init__(
        self,
        rows: Sequence[TrainingRow],
        teacher_rows: Sequence[TrainingRow],
        teacher: Base,
        *,
        batch: int,
        seed: int,
        cache_activations: bool = True,
    ) -> None:
        """`rows`: the teacher's answers after their prompts. `teacher_rows`: the same ones encoded for the teacher,
        whose chat template may differ; both are scored at the same answer tokens.

        `cache_activations`: cache the outputs of the student's frozen layers, if rows are read repeatedly.
        """
        self.rows, self.batch, self.seed = rows, batch, seed
        self.activation_cache = (
            ActivationCache(partial(first_epoch, self.rows, batch=batch, seed=seed)) if cache_activations else None
        )
        if state_bytes(teacher, sum(row.trained_tokens for row in self.rows)) <= MAX_BYTES:
            cached_states = answer_states(teacher, teacher_rows)
            self._states_of: Callable[[Sequence[int]], list[Tensor]] = lambda numbers: [
                cached_states[one] for one in numbers
            ]
        else:
            self._states_of = lambda numbers: answer_states(teacher, [teacher_rows[one] for one in numbers])
        head = teacher.model.get_output_embeddings()
        self._head, self._cap = (head.weight, head.bias), softcap(teacher.model)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Return the student's trainable parameters."""
        return trainable_parameters(base.model)

    def batches(self, step: int) -> list[DistillBatch]:
        """Return the micro-batches of one optimizer step."""
        numbers = step_rows(len(self.rows), self.batch, step, self.seed)
        chosen = [self.rows[number] for number in numbers]
        number_of = {id(row.encoded): number for row, number in zip(chosen, numbers, strict=True)}
        return [self._pack(part, [number_of[id(row.encoded)] for row in part]) for part in microbatch_rows(chosen)]

    def _pack(self, rows: Sequence[TrainingRow], numbers: Sequence[int]) -> DistillBatch:
        batch_of_rows, states = pack_rows(rows), self._states_of(numbers)
        own = {name: getattr(batch_of_rows, name) for name in Batch.__dataclass_fields__}
        return DistillBatch(**own, states_ME=torch.cat(states))

    def loss(self, base: Base, batch: DistillBatch) -> Loss:
        """Return this micro-batch's part of the step's loss; the weights are already divided by the step's total."""
        hidden_MD = scored_hidden(base, batch, self.activation_cache)
        head = base.model.get_output_embeddings()
        value, parts_M = kl_from_teacher(
            partial(self._log_q, batch.states_ME.to(hidden_MD.device), head.weight.shape[0]),
            hidden_MD,
            head.weight,
            batch.weights_M.to(hidden_MD.device),
            bias_V=head.bias,
            softcap=softcap(base.model),
        )
        return Loss(value=value, parts_M=parts_M)

    def _log_q(self, states_ME: Tensor, vocabulary: int, part: slice) -> Tensor:
        """Return the teacher's log-probabilities over the student's vocabulary at some positions, `log_q_RV`."""
        weight, bias = self._head
        common = None if bias is None else bias[:vocabulary]
        log_q_RV, _ = head_log_softmax(states_ME[part], weight[:vocabulary], common, self._cap)
        return F.pad(log_q_RV, (0, vocabulary - log_q_RV.shape[1]), value=LOG_ZERO)


def state_bytes(teacher: Base, tokens: int) -> int:
    """Return the bytes of a teacher's hidden states for `tokens` tokens."""
    return tokens * int(teacher.model.config.hidden_size) * int(teacher.model.dtype.itemsize)


@torch.no_grad()
def answer_states(teacher: Base, rows: Iterable[TrainingRow]) -> list[Tensor]:
    """Return the teacher's last hidden states before each token of each answer, `[T, E]` on the CPU."""
    remaining, found = iter(rows), []
    while block := [(TrainingRow(encoded=row.encoded),) for row in islice(remaining, BLOCK)]:
        found += _block_states(teacher, block)
    return found


def _block_states(teacher: Base, units: Sequence[tuple[TrainingRow, ...]]) -> list[Tensor]:
    number_of = {id(unit): number for number, unit in enumerate(units)}
    found: dict[int, Tensor] = {}
    parts = micro_batches(units)

    def read(part: Sequence[tuple[TrainingRow, ...]]) -> tuple[Tensor, ...]:
        batch = pack_rows([row for unit in part for row in unit])
        states_ME = scored_hidden(teacher, batch).cpu()
        return torch.split(states_ME, torch.bincount(batch.row_M, minlength=batch.rows).tolist())

    for part, each in zip(parts, map_microbatches(read, parts, size=units_tokens), strict=True):
        found |= {number_of[id(unit)]: states for unit, states in zip(part, each, strict=True)}
    return [found[number] for number in range(len(units))]
