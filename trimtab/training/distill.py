"""Objective of the one loop that imitates a teacher: not only what it answered, but how likely it held every other token.

Shapes: M scored positions, R of them in one chunk, T of one answer, E the teacher's hidden size, V the student's vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trimtab.base.records import Encoded
from trimtab.model.adapters.apply import trainable_parameters
from trimtab.model.load import Base, softcap
from trimtab.training.activation_cache import MAX_BYTES, ActivationCache
from trimtab.training.batch import (
    Batch,
    TrainingRow,
    default_microbatch_tokens,
    first_epoch,
    micro_batches,
    pack_rows,
    step_microbatch_rows,
    steps_per_epoch,
)
from trimtab.training.losses import Loss, head_log_softmax, kl_from_teacher, scored_hidden
from trimtab.training.parallel import map_microbatches

LOG_ZERO = -1e4  # the log-probability of a token that the teacher's head lacks: finite, so that 0 times it is 0


@dataclass(frozen=True, kw_only=True)
class TeacherTargets:
    """An answer of the teacher behind its prompt: as the student reads both, and as the teacher does, whose chat template may differ.

    Both are scored at the same tokens of the answer.
    """

    student: TrainingRow
    teacher: Encoded


@dataclass(frozen=True, kw_only=True)
class DistillBatch(Batch):
    """A batch whose rows are answers of the teacher; `states_ME` are its own last hidden states where they are scored."""

    states_ME: Tensor


class Distillation:
    """`KL(teacher || student)` over the vocabulary, a mean over the answer tokens of the whole optimizer step.

    Hinton et al. 2015 (arXiv 1503.02531) at temperature 1, over the teacher's own answers as Kim & Rush 2016 (arXiv 1606.07947)
    have it: they are where a student that imitates it will stand. The teacher reads them once: its hidden states are kept, its
    head makes logits of them chunk by chunk, and the rest of it can be let go of. Of a head that is wider or narrower than the
    student's only the tokens that both have are compared, the teacher's share of them taken as the whole.
    """

    def __init__(
        self,
        targets: Sequence[TeacherTargets],
        teacher: Base,
        *,
        batch: int,
        seed: int,
        cache_activations: bool = True,
        tokens: int | None = None,
    ) -> None:
        """`cache_activations`: rows are read often enough to keep what the student's frozen layers put out for them. `tokens`: of a pass, MICRO_TOKENS unless given."""
        self.rows = [target.student for target in targets]
        self.batch, self.seed, self.tokens = batch, seed, tokens
        self.activation_cache = (
            ActivationCache(partial(first_epoch, self.rows, batch=batch, seed=seed, tokens=tokens))
            if cache_activations
            else None
        )
        self._number_of = {id(row.encoded): number for number, row in enumerate(self.rows)}
        teacher_rows = [target.teacher for target in targets]
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
        """Optimizer steps that see every row once."""
        return steps_per_epoch(len(self.rows), self.batch)

    def parameters(self, base: Base) -> Mapping[str, nn.Parameter]:
        """Whatever of the student may move."""
        return trainable_parameters(base.model)

    def batches(self, step: int) -> list[DistillBatch]:
        """The micro-batches of one optimizer step."""
        return [
            self._pack(part)
            for part in step_microbatch_rows(self.rows, batch=self.batch, step=step, seed=self.seed, tokens=self.tokens)
        ]

    def _pack(self, rows: Sequence[TrainingRow]) -> DistillBatch:
        batch_of_rows = pack_rows(rows)
        states = self._states_of([self._number_of[id(row.encoded)] for row in rows])
        own = {name: getattr(batch_of_rows, name) for name in Batch.__dataclass_fields__}
        return DistillBatch(**own, states_ME=torch.cat(states))

    def loss(self, base: Base, batch: DistillBatch) -> Loss:
        """This micro-batch's share of the step's loss: weights already carry the division by the step's tokens."""
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
        """What the teacher holds of every token that the student knows, at some of the positions, `log_q_RV`."""
        weight, bias = self._head
        common = None if bias is None else bias[:vocabulary]
        log_q_RV, _ = head_log_softmax(states_ME[part], weight[:vocabulary], common, self._cap)
        return F.pad(log_q_RV, (0, vocabulary - log_q_RV.shape[1]), value=LOG_ZERO)


def state_bytes(teacher: Base, tokens: int) -> int:
    """Bytes of a teacher's hidden states at so many tokens."""
    return tokens * int(teacher.model.config.hidden_size) * int(teacher.model.dtype.itemsize)


@torch.no_grad()
def answer_states(teacher: Base, answers: Sequence[Encoded]) -> list[Tensor]:
    """The teacher's last hidden states before each token of each answer, `[T, E]` on the CPU."""
    units = [(TrainingRow(encoded=answer),) for answer in answers]
    number_of = {id(unit): number for number, unit in enumerate(units)}
    found: dict[int, Tensor] = {}
    parts = micro_batches(units, default_microbatch_tokens(teacher.model.dtype))

    def read(part: Sequence[tuple[TrainingRow, ...]]) -> tuple[Tensor, ...]:
        batch = pack_rows([row for unit in part for row in unit])
        states_ME = scored_hidden(teacher, batch).cpu()
        return torch.split(states_ME, torch.bincount(batch.row_M, minlength=batch.rows).tolist())

    for part, each in zip(parts, map_microbatches(read, parts), strict=True):
        found |= {number_of[id(unit)]: states for unit, states in zip(part, each, strict=True)}
    return [found[number] for number in range(len(units))]
