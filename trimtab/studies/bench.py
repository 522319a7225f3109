"""What the arms of a study share: the loaded models, the index, and prompts answered by whichever weights are on."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from trimtab.answering.cache import shared_length
from trimtab.answering.choose import ChoiceRequest, choose_labels
from trimtab.answering.engine import Engine, Request, generate_texts
from trimtab.base.records import Example, Generation, Hit, Prompt
from trimtab.data.prompts import ChatEncoder
from trimtab.model.catalog import resolve
from trimtab.model.load import Base, load_base
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import search
from trimtab.studies.workspace import Workspace

MOST_PASSAGES = 10
ANSWER_MARGIN = 8  # tokens beyond the longest reference


class Bench:
    """Models and index of one task, loaded when first needed.

    The base is loaded once and again after weights were changed, so that no arm starts from what another one left.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.task = workspace, workspace.task
        self._base: Base | None = None
        self._touched = False
        self.index_seconds = 0.0
        self._hits: dict[str, tuple[Hit, ...]] = {}

    @property
    def base(self) -> Base:
        """The base model with whatever was put onto it."""
        if self._base is None:
            self._base = load_base(self.base_folder, self.task.base.precision)
        return self._base

    @cached_property
    def base_folder(self) -> Path:
        """Where the base model lies."""
        return resolve(self.task.base.model, self.task.base.revision, near=self.task.folder)

    def fresh_base(self, *, will_change: bool) -> Base:
        """The base model as published."""
        if self._touched:
            self._base = None
            gc.collect()
        self._touched = will_change
        return self.base

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
    def index(self) -> Index:
        """The index over the task's documents, brought up to date."""
        began = time.perf_counter()
        index = Index.open(self.workspace.folder / "index", self.embedder)
        index.update(self.workspace.documents)
        self.index_seconds = time.perf_counter() - began
        return index

    @property
    def context_tokens(self) -> int:
        """How many tokens prompt and answer may have together."""
        return int(self.base.model.config.max_position_embeddings)

    @cached_property
    def output_tokens(self) -> int:
        """Longest answer: the task's own figure, else the longest training answer and a margin."""
        if self.task.task.output_tokens:
            return self.task.task.output_tokens
        train = self.workspace.splits["train"]
        longest = max((len(self.encoder.answer(example.references[0])) for example in train), default=128)
        return min(longest + ANSWER_MARGIN, self.context_tokens // 2)

    def hits(self, examples: Sequence[Example]) -> list[tuple[Hit, ...]]:
        """The best passages of each example, asked for once."""
        new = [example for example in examples if example.id not in self._hits]
        found = search(self.index, [example.input for example in new], MOST_PASSAGES)
        self._hits.update({example.id: hits for example, hits in zip(new, found, strict=True)})
        return [self._hits[example.id] for example in examples]

    def forget_hits(self) -> None:
        """Let the next question pay for its own retrieval."""
        self._hits.clear()

    def answer(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer with the weights that are on: a label of the closed set, or text."""
        if self.task.task.kind == "classify":
            requests = [ChoiceRequest(id=prompt.id, ids=self.encoder.prompt(prompt.messages)) for prompt in prompts]
            return choose_labels(self.base, requests, self.workspace.labels, self._label_ids)
        asked = [
            Request(id=prompt.id, ids=self.encoder.prompt(prompt.messages), max_new=self.output_tokens)
            for prompt in prompts
        ]
        engine = Engine(self.base, self.encoder.stop_ids)
        return [_stripped(item) for item in generate_texts(engine, self.base.tokenizer, asked)]

    def answer_alone(self, sample: Sequence[Prompt]) -> Callable[[Prompt], Generation]:
        """An answerer of single prompts as a server runs it: what all prompts begin with is read beforehand."""
        if self.task.task.kind == "classify":
            return lambda prompt: self.answer([prompt])[0]
        engine = Engine(self.base, self.encoder.stop_ids)
        ids = [self.encoder.prompt(prompt.messages) for prompt in sample]
        engine.hold(ids[0][: shared_length(ids)] if len(ids) > 1 else ())

        def alone(prompt: Prompt) -> Generation:
            request = Request(id=prompt.id, ids=self.encoder.prompt(prompt.messages), max_new=self.output_tokens)
            return _stripped(generate_texts(engine, self.base.tokenizer, [request])[0])

        return alone

    @cached_property
    def _label_ids(self) -> list[tuple[int, ...]]:
        return [self.encoder.answer(label) for label in self.workspace.labels]


def _stripped(item: Generation) -> Generation:
    return Generation(
        id=item.id,
        text=item.text.strip(),
        prompt_tokens=item.prompt_tokens,
        new_tokens=item.new_tokens,
        seconds=item.seconds,
        finished=item.finished,
    )
