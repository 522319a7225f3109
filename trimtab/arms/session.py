"""Session: the base model that the arms of a study share, and answering with the currently attached weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.arms.device_check import ensure_checked
from trimtab.arms.retriever import Retriever
from trimtab.arms.workspace import Workspace, write_refusals
from trimtab.base.errors import InputError
from trimtab.base.grammar import method_of
from trimtab.base.machine import memory_use, release_memory
from trimtab.base.records import Calibration, Document, Example, Generation, Message, Prompt, Refusal, Split
from trimtab.data.formats import too_many_refused
from trimtab.data.prompts import ChatEncoder, build_prompt
from trimtab.data.row_store import select_rows
from trimtab.inference.engine import Engine, Request, generate_texts
from trimtab.inference.kv_cache import Prefix, shared_length
from trimtab.inference.label_scoring import (
    LabelRequest,
    cached_token_count,
    choose_labels,
    prefill_prefix,
    score_labels,
)
from trimtab.inference.quote import QuoteConstraint
from trimtab.inference.request import require_room
from trimtab.model import process_group, sharded
from trimtab.model.adapters.apply import detach
from trimtab.model.catalog import resolve
from trimtab.model.device_record import require_usable, usable_device
from trimtab.model.devices import choose_precision
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.model.model_files import weight_files
from trimtab.model.prompt_tuning import count_virtual_tokens
from trimtab.model.share_weights import share_weights
from trimtab.retrieval.index import Index
from trimtab.training.features import mean_hidden

if TYPE_CHECKING:
    from trimtab.arms.search.reflection import Reflector

BATCH_ITEMS = 64  # questions answered, and saved, in one batch
FREE_SHARE = 0.8  # of the free memory that a base model may take; answering needs the rest
ANSWER_MARGIN = 8  # margin in tokens beyond the longest reference


class Session:
    """The base model of one task, loaded when first needed. Arms attach their weights to it in turn."""

    def __init__(self, workspace: Workspace, precision: str | None = None, *, base: Base | None = None) -> None:
        self.workspace, self.task = workspace, workspace.task
        self._requested_precision = precision or workspace.task.base.precision
        self.eight_bit = False  # True: arms answer with int8 weights
        self.teacher_folder: Path | None = None  # folder of a teacher's answers for all arms; None: in each run
        self.reflector: Reflector | None = None  # the model that rewrites the instructions of arms
        self.shots: Sequence[Example] | None = None  # fixed shots that were drawn earlier, as in a bundle
        self._base = base  # a base model that is already loaded, or None

    @property
    def base(self) -> Base:
        """Return the base model with whatever is attached to it."""
        if self._base is None:
            self._base = self._load_base()
        return self._base

    def _load_base(self) -> Base:
        """Return the base model from its folder; in a group of processes in host memory, from where it is divided."""
        ensure_checked()
        if process_group.size() == 1:
            return accelerate(load_base(self.base_folder, self._requested_precision))
        device, requested = process_group.device().type, self._requested_precision
        precision = process_group.broadcast(lambda: choose_precision(requested, device))
        require_usable(device, precision)  # this process's machine may be another
        return load_base(self.base_folder, precision, "cpu")

    def release_base(self) -> None:
        """Forget the base model with what is attached to it; the next use loads it again."""
        if self._base is not None:
            self._requested_precision = self._base.precision  # a measurement would take its time again
        self._base = None
        sharded.release()
        release_memory()

    def base_fits(self) -> bool:
        """True if the base model that is not loaded fits into the free memory of this process's device."""
        needed = sum(file.stat().st_size for file in weight_files(self.base_folder))
        free = torch.cuda.mem_get_info()[0] if usable_device() == "cuda" else memory_use().available
        return needed < FREE_SHARE * free

    @property
    def precision(self) -> str:
        """Return the precision of the base model; before it is loaded, the requested one."""
        return self._base.precision if self._base else self._requested_precision

    @cached_property
    def base_folder(self) -> Path:
        """Return the folder of the base model."""
        return resolve(self.task.base.model, self.task.base.revision, near=self.task.folder)

    def fresh_base(self) -> Base:
        """Return the base model without adapters: those of the previous arm are detached, without reading the disk."""
        detach(self.base)
        release_memory()
        return self.base

    def sharing_models(self) -> Session:
        """Return another session with the same models and indexes; what is attached to its base model stays its own."""
        _ = self.retriever  # opened before the copy, which then has the same
        own = copy.copy(self)
        own._base = share_weights(self.base)
        return own

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Return the chat encoder: conversations to token ids."""
        ends = getattr(self.base.model.generation_config, "eos_token_id", None)
        stops = [ends] if isinstance(ends, int) else list(ends or [])
        return ChatEncoder(self.base.tokenizer, stops)

    @cached_property
    def retriever(self) -> Retriever:
        """Return the search over the task's documents."""
        return Retriever(self.workspace)

    def set_documents(self, documents: tuple[Document, ...], indexes: Mapping[int, Index]) -> None:
        """Switch to these documents and to the indexes over them, which `retriever.build_indexes` made."""
        self.workspace = replace(self.workspace, documents=documents)
        self.retriever.set_documents(documents, indexes)

    def mean_hidden_states(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean hidden state of each text after the instruction, `[N, D]`; long texts are truncated."""
        instruction = self.task.task.instruction
        said = [Example(id="", messages=(Message(role="user", content=text),), references=()) for text in texts]
        asked = [self.encoder.prompt(build_prompt(one, instruction).messages)[: self.context_tokens] for one in said]
        vectors: NDArray[np.float32] = mean_hidden(self.base, asked).numpy()
        return vectors

    @property
    def context_tokens(self) -> int:
        """Return the number of tokens for prompt and answer together, after attached virtual tokens."""
        return int(self.base.model.config.max_position_embeddings) - count_virtual_tokens(self.base.model)

    @cached_property
    def output_tokens(self) -> int:
        """Return the limit of an answer in tokens: the task's own, else the longest training answer and a margin."""
        if self.task.task.output_tokens:
            return self.task.task.output_tokens
        train = self.workspace.splits["train"]
        longest = max((len(self.encoder.answer(example.references[0])) for example in train), default=128)
        return min(longest + ANSWER_MARGIN, self.context_tokens // 2)

    @cached_property
    def max_answer_tokens(self) -> int:
        """Return the most tokens of an answer: of the longest label of a closed set, or `output_tokens`."""
        closed = self.task.task.kind == "classify"
        return max(map(len, self._label_ids), default=0) if closed else self.output_tokens

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        held: Prefix | None = None,
        engine: Engine | None = None,
        most: int | None = None,
        calibration: Calibration | None = None,
        quote: bool = False,
    ) -> list[Generation]:
        """Answer with the attached weights: a label of the closed set, or text.

        For labels: `held` is a precomputed prefix of the prompts, `calibration` the calibration of the scores. Text is
        generated by `engine`, with its prefix cache, and cut after `most` tokens; with `quote` it is constrained to
        each prompt's passages.
        """
        if self.task.task.kind == "classify":
            asked_labels, labels = self._requests(prompts), self.workspace.labels
            return choose_labels(
                *(self.base, asked_labels, labels, self._label_ids),
                pinned=held,
                calibration=calibration,
            )
        longest = self.output_tokens
        asked = [
            Request(
                id=prompt.id,
                ids=self.encoder.prompt(prompt.messages),
                max_new=min(most or longest, longest),
                constraint=self.quote(prompt) if quote else None,
            )
            for prompt in prompts
        ]
        engine = engine or Engine(self.base, self.encoder.stop_ids)
        return [replace(item, text=item.text.strip()) for item in generate_texts(engine, self.base.tokenizer, asked)]

    def quote(self, prompt: Prompt) -> QuoteConstraint:
        """Return the constraint of a quoting answer: words of the prompt's passages, or those for abstaining."""
        return QuoteConstraint(texts=tuple(hit.passage.text for hit in prompt.hits), phrases=(self.task.task.unknown,))

    def label_sums(self, prompts: Sequence[Prompt]) -> Any:
        """Return the summed log-probability of every label after every prompt, `[prompts, labels]`."""
        return score_labels(self.base, self._requests(prompts), self._label_ids).numpy()

    @property
    def label_lengths(self) -> list[int]:
        """Return the number of tokens of each label, end token included."""
        return [len(ids) for ids in self._label_ids]

    @property
    def kv_cache_tokens(self) -> int:
        """Return the largest number of tokens whose keys and values are cached while labels are scored."""
        return cached_token_count(self._label_ids)

    def _requests(self, prompts: Sequence[Prompt]) -> list[LabelRequest]:
        return [LabelRequest(id=prompt.id, ids=self.encoder.prompt(prompt.messages)) for prompt in prompts]

    def label_chooser(
        self, sample: Sequence[Prompt], calibration: Calibration | None
    ) -> Callable[[Prompt], Generation]:
        """Return a function that chooses the label of one prompt, with the sample's common prefix precomputed."""
        held = self.shared_prefix(sample)
        return lambda prompt: self.answer([prompt], held=held, calibration=calibration)[0]

    def shared_prefix(self, sample: Sequence[Prompt]) -> Prefix | None:
        """Return the common prefix of the sample's prompts, precomputed under the attached weights."""
        return prefill_prefix(self.base, self._shared(sample))

    def engine(self, sample: Sequence[Prompt]) -> Engine:
        """Return a text generator for the attached weights, with the sample's common prefix precomputed."""
        engine = Engine(self.base, self.encoder.stop_ids)
        engine.pin(self._shared(sample))
        return engine

    def _shared(self, sample: Sequence[Prompt]) -> tuple[int, ...]:
        """Return the common prefix of a sample's prompts. Raises ContextLengthError if it does not fit the model."""
        ids = [self.encoder.prompt(prompt.messages) for prompt in sample]
        shared = ids[0][: shared_length(ids)] if len(ids) > 1 else ()
        require_room("the part that all prompts share", len(shared), 1, self.context_tokens)
        return shared

    @cached_property
    def _label_ids(self) -> list[tuple[int, ...]]:
        return [self.encoder.answer(label) for label in self.workspace.labels]


def open_session(workspace: Workspace, precision: str | None = None) -> Session:
    """Return a session whose rows all fit the model: longer rows leave their split and are listed in `refused.jsonl`.

    `precision`: that of work to resume, which is not measured again. A training row must fit with its own answer, a
    dev or test row with the longest possible answer. Nothing is checked if no arm runs the base model. Raises
    InputError if no train or test row is left, or too many had to go.
    """
    session = Session(workspace, precision)
    if not any(method_of(arm).uses_base for arm in workspace.task.arms):
        return session
    for splits in (("train",), ("dev", "test")):  # the longest answer is that of the remaining training rows
        _refuse_long_rows(session, splits)
    for name in ("train", "test"):
        if workspace.splits[name] and not session.workspace.splits[name]:
            raise InputError(
                f"every row of {name} is longer than the model's {session.context_tokens} tokens",
                "shorten them, or choose a base model with a longer context",
                field="data.examples",
            )
    gone, rows = len(session.workspace.refusals) - len(workspace.refusals), sum(map(len, workspace.splits.values()))
    if gone:
        write_refusals(workspace.folder, session.workspace.refusals)
    if too_many_refused(gone, rows):
        raise InputError(
            f"{gone:,} of {rows:,} rows are longer than the model's {session.context_tokens} tokens "
            "(refused.jsonl lists them)",
            "shorten them, or choose a base model with a longer context",
            field="data.examples",
        )
    return session


def _refuse_long_rows(session: Session, splits: Sequence[Split]) -> None:
    instruction, most = session.task.task.instruction, session.context_tokens
    kept, refused = dict(session.workspace.splits), []
    for name in splits:
        rows, fitting = session.workspace.splits[name], []
        for number, example in enumerate(rows):
            messages, reference = build_prompt(example, instruction).messages, example.references[0]
            room = 0 if name == "train" else session.max_answer_tokens
            if session.encoder.most_tokens(messages, reference) + room <= most:
                fitting.append(number)
                continue
            answer = len(session.encoder.answer(reference))
            tokens = len(session.encoder.prompt(messages)) + max(answer, room)
            if tokens <= most:
                fitting.append(number)
                continue
            reason = f"{tokens} tokens with instruction and answer, more than the model's {most}"
            remedy = "shorten it, or choose a base model with a longer context"
            refused.append(Refusal(file=example.file, line=example.line, reason=reason, remedy=remedy))
        kept[name] = rows if len(fitting) == len(rows) else select_rows(rows, np.array(fitting, np.int32))
    session.workspace = replace(session.workspace, splits=kept, refusals=(*session.workspace.refusals, *refused))
