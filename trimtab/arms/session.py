"""What the arms of a study share: the loaded models, the index, and prompts answered by whichever weights are on."""

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
from trimtab.retrieval.search import EQUAL_WEIGHT, search
from trimtab.training.features import mean_hidden

BATCH_ITEMS = 64  # questions that are answered together, and kept together
MOST_PASSAGES = 64  # as many as an arm may ask for
TIMED_ALONE = 2  # questions that are answered both ways, to take the faster
ANSWER_MARGIN = 8  # tokens beyond the longest reference


class Session:
    """Models and index of one task, each loaded once, when first needed; arms put their weights onto the one base in turn."""

    def __init__(self, workspace: Workspace, precision: str | None = None, *, base: Base | None = None) -> None:
        self.workspace, self.task = workspace, workspace.task
        self._asked_precision = precision or workspace.task.base.precision
        self.eight_bit = False  # whether arms answer with weights of 8 bits
        self.taught: Path | None = None  # where a teacher's answers are kept for all arms; None: in each run
        self.proposals = Proposals()  # instructions that an endpoint proposed, tried beside the rewordings
        self.shots: tuple[Example, ...] | None = None  # the fixed ones where they were drawn before, as in a bundle
        self._base = base  # one that is loaded already, or None
        self._hits: dict[tuple[int, float, bool, str], tuple[Hit, ...]] = {}
        self._indexes: dict[int, Index] = {}
        self._extractor: Extractor | None = None
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @property
    def base(self) -> Base:
        """The base model with whatever was put onto it."""
        if self._base is None:
            self._base = accelerate(load_base(self.base_folder, self._asked_precision))
        return self._base

    @property
    def precision(self) -> str:
        """What the base model runs in; before it is loaded, what was asked for."""
        return self._base.precision if self._base else self._asked_precision

    @cached_property
    def base_folder(self) -> Path:
        """Where the base model lies."""
        return resolve(self.task.base.model, self.task.base.revision, near=self.task.folder)

    def fresh_base(self) -> Base:
        """The base model as published: what an arm put onto it is taken off again, and the disk is not read."""
        detach(self.base)
        release_memory()
        return self.base

    def beside(self) -> Session:
        """Another session that shares all models and indexes with this one; what is put onto its base stays its own."""
        own = copy.copy(self)
        own._base = share_weights(self.base)
        return own

    @cached_property
    def encoder(self) -> ChatEncoder:
        """Conversations to token ids."""
        ends = getattr(self.base.model.generation_config, "eos_token_id", None)
        stops = [ends] if isinstance(ends, int) else list(ends or [])
        return ChatEncoder(self.base.tokenizer, stops)

    @cached_property
    def embedder(self) -> Embedder:
        """The embedding model."""
        return Embedder(resolve(self.task.base.embedding, near=self.task.folder))

    @cached_property
    def reranker(self) -> Reranker | None:
        """The model that puts passages in order, where the task names one."""
        name = self.task.base.reranker
        return Reranker(resolve(name, near=self.task.folder)) if name else None

    def index_of(self, chunk_words: int = WORDS) -> Index:
        """The index over the task's documents in passages of about so many words: made when first asked for, brought up to date then."""
        if chunk_words not in self._indexes:
            index = self._opened_index(chunk_words)
            index.update(self.workspace.documents)
            self._indexes[chunk_words] = index
        return self._indexes[chunk_words]

    def index_folder(self, chunk_words: int = WORDS) -> Path:
        """Where the index over passages of about so many words lies: each size beside the usual one, so that its bytes are its own."""
        return self.workspace.folder / ("index" if chunk_words == WORDS else f"index-{chunk_words}")

    def indexed(self, documents: tuple[Document, ...]) -> dict[int, Index]:
        """Indexes over other documents, one for each that is in use, by words of a passage; for `take_documents`.

        May be called from another thread: the indexes in use go on answering, and texts are embedded by a model of its own.
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

    def take_documents(self, documents: tuple[Document, ...], indexes: Mapping[int, Index]) -> None:
        """Answer from these documents and their indexes from now on; what was looked up is forgotten."""
        self.workspace = replace(self.workspace, documents=documents)
        for words, index in self._indexes.items():
            if words not in indexes:  # made after the others were indexed
                index.update(documents)
        self._indexes.update(indexes)
        self.forget_hits()

    def _opened_index(self, chunk_words: int) -> Index:
        return Index.open(self.index_folder(chunk_words), self.embedder, words=chunk_words)

    def embedded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [N, D] of texts that are compared with each other, each text embedded once in a session.

        Where the seconds of embedding are measured, the embedder is asked.
        """
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        vectors = self.embedder.encode(new)
        self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[text] for text in texts]) if texts else vectors

    def hidden(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the base model that is on makes of each text behind the instruction: `mean_hidden`, `[N, D]`; long ones are cut."""
        instruction = self.task.task.instruction
        said = [Example(id="", messages=(Message(role="user", content=text),), references=()) for text in texts]
        asked = [self.encoder.prompt(build_prompt(one, instruction).messages)[: self.context_tokens] for one in said]
        vectors: NDArray[np.float32] = mean_hidden(self.base, asked).numpy()
        return vectors

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together, beside virtual tokens that are on."""
        return int(self.base.model.config.max_position_embeddings) - count_virtual_tokens(self.base.model)

    @cached_property
    def output_tokens(self) -> int:
        """Longest answer: the task's own figure, else the longest training answer and a margin."""
        if self.task.task.output_tokens:
            return self.task.task.output_tokens
        train = self.workspace.splits["train"]
        longest = max((len(self.encoder.answer(example.references[0])) for example in train), default=128)
        return min(longest + ANSWER_MARGIN, self.context_tokens // 2)

    @cached_property
    def answer_room(self) -> int:
        """Tokens that an answer may take: the longest label of a closed set, or text of `output_tokens`."""
        closed = self.task.task.kind == "classify"
        return max(map(len, self._label_ids), default=0) if closed else self.output_tokens

    def part(self, split: Split, most: int) -> tuple[Example, ...]:
        """At most so many examples of a split, drawn so that they stand for all of it."""
        return sample_rows(self.workspace.splits[split], most, self.task.task.kind)

    def hits(
        self,
        examples: Sequence[Example],
        *,
        chunk_words: int = WORDS,
        vector_weight: float = EQUAL_WEIGHT,
        rerank: bool = False,
    ) -> list[tuple[Hit, ...]]:
        """The best passages of each question, looked up once for the same text and settings.

        Passages are of about `chunk_words` words; `vector_weight` is the share of the vectors against the words, from 0 to 1.
        `rerank`: the task's model for it puts the best in order.
        """
        asked = [(chunk_words, vector_weight, rerank, example.input) for example in examples]
        new = list(dict.fromkeys(key for key in asked if key not in self._hits))
        questions, index = [question for *_, question in new], self.index_of(chunk_words)
        found = search(index, questions, MOST_PASSAGES, vector_weight=vector_weight)
        if rerank and self.reranker is not None:
            found = [self.reranker.rerank(question, hits) for question, hits in zip(questions, found, strict=True)]
        self._hits.update(zip(new, found, strict=True))
        return [self._hits[key] for key in asked]

    def extracted(self, examples: Sequence[Example], k: int) -> list[tuple[Hit, ...]]:
        """The `k` sentences of the documents that most likely answer each question, best first."""
        index = self.index_of(SENTENCE)
        if self._extractor is None or self._extractor.index is not index:
            self._extractor = Extractor(index)
        return self._extractor.best([example.input for example in examples], k)

    @property
    def timings(self) -> int:
        """How many questions each arm is timed on alone; with a latency limit as many as its bound needs for so many arms."""
        return MIN_LATENCIES if self.task.target.latency_p95_ms is None else latencies_needed(len(self.task.arms))

    def timed_questions(self, split: Split) -> tuple[Example, ...]:
        """The questions that are timed alone: of the split, and for a latency limit of dev where that has too few."""
        asked = self.part(split, self.timings)
        if split == "dev" or self.task.target.latency_p95_ms is None:
            return asked
        return (*asked, *self.part("dev", self.timings - len(asked)))

    def forget_hits(self) -> None:
        """Let the next question pay for its own retrieval."""
        self._hits.clear()

    def unindexed(self, chunk_words: int = WORDS) -> list[str]:
        """The texts that the index would have to embed to be up to date."""
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
        """Answer with the weights that are on: a label of the closed set, or text.

        For labels, `held` is a beginning of the prompts that was read before, `calibration` how they are weighed, `whole` whether all
        of them are scored at once. Texts are written by `engine`, with what it holds, and cut after `most` tokens; with
        `quote` they are held to each prompt's passages.
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
        """The constraint of an answer that quotes: words of the prompt's passages, or the task's words of abstaining."""
        return QuoteConstraint(texts=tuple(hit.passage.text for hit in prompt.hits), phrases=(self.task.task.unknown,))

    def label_sums(self, prompts: Sequence[Prompt]) -> Any:
        """The summed log-probability of every label after every prompt, by the weights that are on: an array `[prompts, labels]`."""
        return score_labels(self.base, self._requests(prompts), self._label_ids).numpy()

    @property
    def label_lengths(self) -> list[int]:
        """How many tokens each label has, its end token among them."""
        return [len(ids) for ids in self._label_ids]

    @property
    def kept_tokens(self) -> int:
        """Of how many tokens keys and values are kept while labels are chosen, at most."""
        return cached_token_count(self._label_ids)

    def _requests(self, prompts: Sequence[Prompt]) -> list[LabelRequest]:
        return [LabelRequest(id=prompt.id, ids=self.encoder.prompt(prompt.messages)) for prompt in prompts]

    def choose_alone(self, sample: Sequence[Prompt], calibration: Calibration | None) -> Callable[[Prompt], Generation]:
        """A chooser of labels for single prompts as a server runs it: what all prompts begin with is read beforehand."""
        held = self.held(sample)
        whole = self._is_faster_whole(sample[:TIMED_ALONE], held, calibration)
        return lambda prompt: self.answer([prompt], held=held, calibration=calibration, whole=whole)[0]

    def held(self, sample: Sequence[Prompt]) -> Prefix | None:
        """What all prompts of the sample begin with, read by the weights that are on."""
        return prefill_prefix(self.base, self._shared(sample))

    def engine(self, sample: Sequence[Prompt]) -> Engine:
        """What writes answers by the weights that are on, what all prompts of the sample begin with read beforehand."""
        engine = Engine(self.base, self.encoder.stop_ids)
        engine.pin(self._shared(sample))
        return engine

    def _shared(self, sample: Sequence[Prompt]) -> tuple[int, ...]:
        """The ids that all prompts of a sample begin with."""
        ids = [self.encoder.prompt(prompt.messages) for prompt in sample]
        return ids[0][: shared_length(ids)] if len(ids) > 1 else ()

    def _is_faster_whole(self, sample: Sequence[Prompt], held: Prefix | None, calibration: Calibration | None) -> bool:
        """Whether these weights choose a label faster by scoring all at once: of an unsure model nearly every label matters."""
        if not sample or not self.kept_tokens:  # so few labels are scored at once anyway
            return False

        def seconds(whole: bool) -> float:
            began = time.perf_counter()
            for prompt in sample:
                self.answer([prompt], held=held, calibration=calibration, whole=whole)
            return time.perf_counter() - began

        seconds(True)  # the first, cold one is not counted
        return seconds(True) < seconds(False)

    @cached_property
    def _label_ids(self) -> list[tuple[int, ...]]:
        return [self.encoder.answer(label) for label in self.workspace.labels]


def open_session(workspace: Workspace, precision: str | None = None) -> Session:
    """A session whose rows all fit the model: longer ones leave their split and stand in `refused.jsonl`.

    `precision` is that of work to go on with: it was decided then, and is not measured again. A training row must fit with its
    own answer, a dev or test row with the longest that may be given. Nothing is done where no arm runs the base model.
    Raises InputError where no row of train or test is left, or too many had to go.
    """
    session = Session(workspace, precision)
    if not any(method_of(arm).uses_base for arm in workspace.task.arms):
        return session
    for splits in (("train",), ("dev", "test")):  # the longest answer is known from the training rows that stay
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
            f"{gone:,} of {rows:,} rows are longer than the model's {session.context_tokens} tokens (refused.jsonl lists them)",
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
            room = answer if name == "train" else max(answer, session.answer_room)
            tokens = len(session.encoder.prompt(build_prompt(example, instruction).messages)) + room
            if tokens <= most:
                fitting.append(example)
                continue
            reason = f"{tokens} tokens with instruction and answer, more than the model's {most}"
            remedy = "shorten it, or choose a base model with a longer context"
            refused.append(Refusal(file=example.file, line=example.line, reason=reason, remedy=remedy))
        kept[name] = tuple(fitting)
    session.workspace = replace(session.workspace, splits=kept, refusals=(*session.workspace.refusals, *refused))
