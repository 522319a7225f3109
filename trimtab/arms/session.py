"""Session: models and indexes that the arms of a study share, and answering with the currently attached weights."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.arms.search.proposals import Proposals
from trimtab.arms.workspace import Workspace, write_refusals
from trimtab.base.errors import InputError
from trimtab.base.grammar import SENTENCE, method_of
from trimtab.base.machine import release_memory
from trimtab.base.records import Calibration, Document, Example, Generation, Hit, Message, Prompt, Refusal, Split
from trimtab.data.draw import sample_rows
from trimtab.data.formats import too_many_refused
from trimtab.data.prompts import ChatEncoder, build_prompt
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
from trimtab.measurement.latency import MIN_LATENCIES, latencies_needed
from trimtab.model.adapters.apply import detach
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base
from trimtab.model.prompt_tuning import count_virtual_tokens
from trimtab.model.share_weights import share_weights
from trimtab.retrieval.chunk import WORDS
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import Extractor
from trimtab.retrieval.index import Index
from trimtab.retrieval.rerank import Reranker
from trimtab.retrieval.search import EQUAL_WEIGHT, hybrid_search
from trimtab.training.features import mean_hidden

BATCH_ITEMS = 64  # questions answered, and saved, in one batch
MOST_PASSAGES = 64  # the most passages that an arm may use
TIMED_ALONE = 2  # questions answered both ways, to take the faster
ANSWER_MARGIN = 8  # margin in tokens beyond the longest reference


class Session:
    """Models and indexes of one task, each loaded once, when first needed. Arms attach their weights to the one base
    model in turn.
    """

    def __init__(self, workspace: Workspace, precision: str | None = None, *, base: Base | None = None) -> None:
        self.workspace, self.task = workspace, workspace.task
        self._requested_precision = precision or workspace.task.base.precision
        self.eight_bit = False  # True: arms answer with int8 weights
        self.teacher_folder: Path | None = None  # folder of a teacher's answers for all arms; None: in each run
        self.proposals = Proposals()  # instructions that an endpoint proposed, tried besides the variants
        self.shots: tuple[Example, ...] | None = None  # fixed shots that were drawn earlier, as in a bundle
        self._base = base  # a base model that is already loaded, or None
        self._hits: dict[tuple[int, float, bool, str], tuple[Hit, ...]] = {}
        self._indexes: dict[int, Index] = {}
        self._extractor: Extractor | None = None
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @property
    def base(self) -> Base:
        """Return the base model with whatever is attached to it."""
        if self._base is None:
            self._base = accelerate(load_base(self.base_folder, self._requested_precision))
        return self._base

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
    def embedder(self) -> Embedder:
        """Return the embedding model."""
        return Embedder(resolve(self.task.base.embedding, near=self.task.folder))

    @cached_property
    def reranker(self) -> Reranker | None:
        """Return the reranker, None if the task names none."""
        name = self.task.base.reranker
        return Reranker(resolve(name, near=self.task.folder)) if name else None

    def index_of(self, chunk_words: int = WORDS) -> Index:
        """Return the index over the task's documents in passages of about `chunk_words` words; built or updated at its
        first use.
        """
        if chunk_words not in self._indexes:
            index = self._opened_index(chunk_words)
            index.update(self.workspace.documents)
            self._indexes[chunk_words] = index
        return self._indexes[chunk_words]

    def index_folder(self, chunk_words: int = WORDS) -> Path:
        """Return the folder of the index over passages of about `chunk_words` words; each size has its own, so that its
        bytes are counted alone.
        """
        return self.workspace.folder / ("index" if chunk_words == WORDS else f"index-{chunk_words}")

    def build_indexes(self, documents: tuple[Document, ...]) -> dict[int, Index]:
        """Return indexes over other documents, one for each in use, by words of a passage; for `set_documents`.

        Thread-safe: the indexes in use go on answering, and an embedding model of its own is used.
        """
        in_use = list(self._indexes.items())
        if not in_use:
            return {}
        found, embedder = {}, Embedder(self.embedder.folder)
        for words, index in in_use:
            index.pin_version()
            found[words] = Index.open(self.index_folder(words), embedder, words=words)
            found[words].update(documents)
            found[words].pin_version()
            found[words].encoder = self.embedder
        return found

    def set_documents(self, documents: tuple[Document, ...], indexes: Mapping[int, Index]) -> None:
        """Switch to these documents and their indexes; cached retrievals are forgotten."""
        self.workspace = replace(self.workspace, documents=documents)
        for words, index in self._indexes.items():
            if words not in indexes:  # built after the others were indexed
                index.update(documents)
        self._indexes.update(indexes)
        self.forget_hits()

    def _opened_index(self, chunk_words: int) -> Index:
        return Index.open(self.index_folder(chunk_words), self.embedder, words=chunk_words)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors [N, D] of texts that are compared with each other; each text is embedded once in a session.

        To measure the seconds of embedding, use the embedder.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        vectors = self.embedder.encode(new)
        self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[text] for text in texts]) if texts else vectors

    def mean_hidden_states(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean hidden state of each text after the instruction under the base model as attached, `[N, D]`;
        long texts are truncated.
        """
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
        """Return the number of tokens an answer may take: the longest label of a closed set, or `output_tokens` for
        text.
        """
        closed = self.task.task.kind == "classify"
        return max(map(len, self._label_ids), default=0) if closed else self.output_tokens

    def subset(self, split: Split, most: int) -> tuple[Example, ...]:
        """Return at most `most` examples of a split, drawn to represent all of it."""
        return sample_rows(self.workspace.splits[split], most, self.task.task.kind)

    def hits(
        self,
        examples: Sequence[Example],
        *,
        chunk_words: int = WORDS,
        vector_weight: float = EQUAL_WEIGHT,
        rerank: bool = False,
    ) -> list[tuple[Hit, ...]]:
        """Return the best passages of each question, cached by text and settings.

        `chunk_words`: about the words of a passage. `vector_weight`: the weight of the vector search against the
        word search, 0 to 1. `rerank`: reorder the best with the task's reranker.
        """
        asked = [(chunk_words, vector_weight, rerank, example.input) for example in examples]
        new = list(dict.fromkeys(key for key in asked if key not in self._hits))
        questions, index = [question for *_, question in new], self.index_of(chunk_words)
        found = hybrid_search(index, questions, MOST_PASSAGES, vector_weight=vector_weight)
        if rerank and self.reranker is not None:
            found = [self.reranker.rerank(question, hits) for question, hits in zip(questions, found, strict=True)]
        self._hits.update(zip(new, found, strict=True))
        return [self._hits[key] for key in asked]

    def extract_sentences(self, examples: Sequence[Example], k: int) -> list[tuple[Hit, ...]]:
        """Return the `k` sentences of the documents that most likely answer each question, best first."""
        index = self.index_of(SENTENCE)
        if self._extractor is None or self._extractor.index is not index:
            self._extractor = Extractor(index)
        return self._extractor.best([example.input for example in examples], k)

    @property
    def timed_count(self) -> int:
        """Return the number of questions each arm is timed on alone; with a latency limit, as many as its bound needs
        for that many arms.
        """
        return MIN_LATENCIES if self.task.target.latency_p95_ms is None else latencies_needed(len(self.task.arms))

    def timed_questions(self, split: Split) -> tuple[Example, ...]:
        """Return the questions that are timed alone: of the split; with a latency limit also of dev if the split has
        too few.
        """
        asked = self.subset(split, self.timed_count)
        if split == "dev" or self.task.target.latency_p95_ms is None:
            return asked
        return (*asked, *self.subset("dev", self.timed_count - len(asked)))

    def forget_hits(self) -> None:
        """Clear the cached retrievals, so that the next question pays for its own."""
        self._hits.clear()

    def texts_to_embed(self, chunk_words: int = WORDS) -> list[str]:
        """Return the texts that an update of the index would embed."""
        return self._opened_index(chunk_words).texts_to_embed(self.workspace.documents)

    def answer(
        self,
        prompts: Sequence[Prompt],
        *,
        held: Prefix | None = None,
        engine: Engine | None = None,
        most: int | None = None,
        calibration: Calibration | None = None,
        whole: bool = False,
        quote: bool = False,
    ) -> list[Generation]:
        """Answer with the attached weights: a label of the closed set, or text.

        For labels: `held` is a precomputed prefix of the prompts, `calibration` the calibration of the scores,
        `whole` True to score all labels at once. Text is generated by `engine`, with its prefix cache, and cut after
        `most` tokens; with `quote` it is constrained to each prompt's passages.
        """
        if self.task.task.kind == "classify":
            asked_labels, labels = self._requests(prompts), self.workspace.labels
            return choose_labels(
                *(self.base, asked_labels, labels, self._label_ids),
                pinned=held,
                calibration=calibration,
                exhaustive=whole,
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
        """Return the constraint of a quoting answer: words of the prompt's passages, or the task's words for
        abstaining.
        """
        return QuoteConstraint(texts=tuple(hit.passage.text for hit in prompt.hits), phrases=(self.task.task.unknown,))

    def label_sums(self, prompts: Sequence[Prompt]) -> Any:
        """Return the summed log-probability of every label after every prompt under the attached weights, `[prompts,
        labels]`.
        """
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
        """Return a function that chooses the label of one prompt as a server does, with the common prefix of the
        prompts precomputed.
        """
        held = self.shared_prefix(sample)
        whole = self._is_faster_whole(sample[:TIMED_ALONE], held, calibration)
        return lambda prompt: self.answer([prompt], held=held, calibration=calibration, whole=whole)[0]

    def shared_prefix(self, sample: Sequence[Prompt]) -> Prefix | None:
        """Return the common prefix of the sample's prompts, precomputed under the attached weights."""
        return prefill_prefix(self.base, self._shared(sample))

    def engine(self, sample: Sequence[Prompt]) -> Engine:
        """Return a text generator for the attached weights, with the common prefix of the sample's prompts
        precomputed.
        """
        engine = Engine(self.base, self.encoder.stop_ids)
        engine.pin(self._shared(sample))
        return engine

    def _shared(self, sample: Sequence[Prompt]) -> tuple[int, ...]:
        """Return the common prefix of a sample's prompts as token ids."""
        ids = [self.encoder.prompt(prompt.messages) for prompt in sample]
        return ids[0][: shared_length(ids)] if len(ids) > 1 else ()

    def _is_faster_whole(self, sample: Sequence[Prompt], held: Prefix | None, calibration: Calibration | None) -> bool:
        """True if these weights choose a label faster by scoring all labels at once: an unsure model must score nearly
        all anyway.
        """
        if not sample or not self.kv_cache_tokens:  # so few labels are always scored at once
            return False

        def seconds(whole: bool) -> float:
            began = time.perf_counter()
            for prompt in sample:
                self.answer([prompt], held=held, calibration=calibration, whole=whole)
            return time.perf_counter() - began

        seconds(True)  # the first, cold run is not counted
        return seconds(True) < seconds(False)

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
        fitting = []
        for example in session.workspace.splits[name]:
            answer = len(session.encoder.answer(example.references[0]))
            room = answer if name == "train" else max(answer, session.max_answer_tokens)
            tokens = len(session.encoder.prompt(build_prompt(example, instruction).messages)) + room
            if tokens <= most:
                fitting.append(example)
                continue
            reason = f"{tokens} tokens with instruction and answer, more than the model's {most}"
            remedy = "shorten it, or choose a base model with a longer context"
            refused.append(Refusal(file=example.file, line=example.line, reason=reason, remedy=remedy))
        kept[name] = tuple(fitting)
    session.workspace = replace(session.workspace, splits=kept, refusals=(*session.workspace.refusals, *refused))
