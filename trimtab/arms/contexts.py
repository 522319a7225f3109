"""Contexts: what a prompt contains besides the question: instruction, few-shot examples, retrieved passages."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from trimtab.arms.retriever import MOST_PASSAGES
from trimtab.arms.session import Session
from trimtab.base.errors import InputError
from trimtab.base.files import sha256_text
from trimtab.base.grammar import PARTS, SENTENCE, shots_of
from trimtab.base.records import Arm, Example, Generation, Hit, Prompt
from trimtab.base.tables import resolve
from trimtab.data.prompts import Shot, build_prompt, with_passages
from trimtab.data.row_store import BLOCK, select_rows
from trimtab.inference.engine import Engine
from trimtab.inference.request import require_room
from trimtab.measurement.contains import sentences
from trimtab.measurement.ranking import holds, may_hold
from trimtab.retrieval.chunk import WORDS

SHOT_IDS, MOST_SHOTS = "shot_ids", 64  # a list of ids as JSON; most worked examples
# Smallest and largest value of each number of a context.
_BOUNDS = {
    "passages": (0, MOST_PASSAGES),
    "shots": (0, MOST_SHOTS),
    "draw": (0, 1_000),
    "shot_passages": (0, MOST_SHOTS),
    "chunk_words": (0, 10_000),
    "vector_weight": (0, 1),
    "rerank": (0, 1),
    "threshold": (0, 1),
}
SENTENCES_SHOWN = 3  # sentences of the arm `extract` that are shown; the first is its answer
MOST_COMPARED = 2**24  # similarities of questions to the pool of shots that are held at once: 64 MB
USUAL_THRESHOLD = 0.15  # without labelled questions to choose it on; what is below SURE is told as unsure
FRACTIONS = ("vector_weight", "threshold")
NUMBERS = ("passages", "shots", "draw", "shot_passages", "chunk_words")


@dataclass(frozen=True, kw_only=True)
class PassageMix:
    """Passages in training prompts: the share of prompts without the right one, and of distractors that are kept."""

    gold_missing: float = 0.1
    distractors: float = 1.0


USUAL_MIX = PassageMix()


@dataclass(frozen=True, kw_only=True)
class Context:
    """The content of a prompt: number of passages and shots, kind of shots, and instruction.

    `draw`: the seed of the fixed shots. `shot_ids`: the training rows that are the fixed shots, in order, instead of a
    draw. `shot_passages`: each shot has its own right passage. `instruction`: None for the task's own. `chunk_words`:
    words of a passage, 0 for the default. `vector_weight`: the weight of the vector search, None for the task's own.
    `rerank`: use the task's reranker, if it names one. `threshold`: the smallest probability at which the arm `extract`
    answers with a sentence; None for all other arms. `quote`: the answer may only contain words of the passages.
    """

    passages: int = 0
    shots: int = 0
    shot_kind: str | None = None
    draw: int = 0
    shot_ids: tuple[str, ...] = ()
    shot_passages: int = 0
    instruction: str | None = None
    chunk_words: int = 0
    vector_weight: float | None = None
    rerank: int = 1
    threshold: float | None = None
    quote: bool = False

    def chosen(self) -> dict[str, float | int | str]:
        """Return its settings by their names in the task file; empty for the instruction alone."""
        found: dict[str, float | int | str] = {name: getattr(self, name) for name in NUMBERS if getattr(self, name)}
        if self.shot_ids:
            found[SHOT_IDS] = json.dumps(self.shot_ids, ensure_ascii=False)
        if self.vector_weight is not None:
            found["vector_weight"] = self.vector_weight
        if not self.rerank:
            found["rerank"] = 0
        if self.threshold is not None:
            found["threshold"] = self.threshold
        return found if self.instruction is None else {**found, "instruction": self.instruction}

    @property
    def words(self) -> int:
        """Return the number of words of a passage."""
        return self.chunk_words or WORDS

    @property
    def is_instruction_alone(self) -> bool:
        """True if the prompt has no shots and no passages."""
        return not (self.passages or self.shots)


def require_chosen(chosen: Mapping[str, object]) -> None:
    """Raise ValueError for an unknown setting, or a value out of range."""
    for name, value in chosen.items():
        if name == "instruction" and isinstance(value, str):
            continue
        if name == SHOT_IDS:
            read_shot_ids(value)
            continue
        low, high = _BOUNDS.get(name, (1.0, 0.0))
        is_number = isinstance(value, int | float if name in FRACTIONS else int) and not isinstance(value, bool)
        if not (is_number and low <= float(str(value)) <= high):
            raise ValueError(f"{name[:80]!r} cannot be {str(value)[:80]!r}")


def read_shot_ids(value: object) -> tuple[str, ...]:
    """Return the ids of worked examples from the JSON of `Context.chosen`. Raises ValueError for anything else."""
    try:
        ids = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        ids = None
    if not (isinstance(ids, list) and 0 < len(ids) <= MOST_SHOTS and all(isinstance(one, str) for one in ids)):
        raise ValueError(f"{SHOT_IDS!r} cannot be {str(value)[:80]!r}")
    return tuple(ids)


def saved_context(plain: Mapping[str, Any]) -> Context:
    """Return a context from its fields as JSON keeps them."""
    return Context(**{**plain, SHOT_IDS: tuple(plain.get(SHOT_IDS, ()))})


def context_for(arm: Arm, chosen: Mapping[str, object] | None = None) -> Context:
    """Return the context of an arm: `chosen` settings first, then the arm's own, then the defaults."""
    known = {**arm.settings, **(chosen or {})}
    if arm.weights == "extract":
        return Context(
            passages=SENTENCES_SHOWN,
            chunk_words=SENTENCE,
            rerank=0,
            threshold=_fraction(known.get("threshold", USUAL_THRESHOLD)),
        )
    usual = {"draw": 0, "shot_passages": 0, "chunk_words": 0}
    usual |= {part.setting: part.usual for part in (PARTS[name] for name in arm.parts) if part.setting}
    numbers = {name: value if isinstance(value := known.get(name), int) else number for name, number in usual.items()}
    instruction = known.get("instruction")
    return Context(
        **numbers,
        shot_kind=shots_of(arm),
        quote="quote" in arm.parts,
        instruction=instruction if isinstance(instruction, str) else None,
        vector_weight=_fraction(known.get("vector_weight")),
        rerank=0 if known.get("rerank") == 0 else 1,
        shot_ids=read_shot_ids(known[SHOT_IDS]) if SHOT_IDS in known else (),
    )


def has_fixed_shots(context: Context) -> bool:
    """True if the same worked examples stand before every question."""
    return context.shot_kind is not None and PARTS[context.shot_kind].is_fixed_shots


def _fraction(value: object) -> float | None:
    """Return a number from 0 to 1, which JSON may have written as an integer; None if nothing was chosen."""
    return float(value) if isinstance(value, int | float) else None


class PromptBuilder:
    """Builds the prompts of a context. The same function serves training, evaluation and serving.

    `fits`: passages and shots that exceed the base model's context are left out; False for endpoints, whose length
    is unknown.
    """

    def __init__(self, session: Session, context: Context, *, fits: bool = True) -> None:
        self.session, self.context, self.fits = session, context, fits
        own = session.task.task.instruction
        self.instruction = own if context.instruction is None else context.instruction
        pool = session.workspace.splits["train"]
        self.fixed = tuple(self._fixed_shots(pool)) if has_fixed_shots(context) else ()
        chooser: ShotChooserClass | None = resolve(PARTS[context.shot_kind].chooser) if context.shot_kind else None
        self._chosen = chooser(session, pool) if chooser else None
        self._shown: dict[str, Shot] = {}

    def _fixed_shots(self, pool: Sequence[Example]) -> Sequence[Example]:
        """Return the worked examples before every question. Raises InputError if one is no training row any more."""
        context = self.context
        if self.session.shots is not None:
            return self.session.shots
        if not context.shot_ids:
            return draw_fixed_shots(pool, context.shots, context.draw)
        by_id = {row.id: row for row in pool if row.id in context.shot_ids}
        missing = next((name for name in context.shot_ids if name not in by_id), None)
        if missing is not None:
            problem = f"the worked example {missing[:80]!r} that a search chose is not among the training rows"
            raise InputError(problem, "bring the row back, or run the study again", field="data.examples")
        return [by_id[name] for name in context.shot_ids]

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the prompts for questions. Passages that do not fit are dropped, the least similar first.

        For the arm `extract` the sentences are in `hits` alone: no model reads them.
        """
        hits = self.retrieve(examples) if self.context.passages else [()] * len(examples)
        return self.prompts_with(examples, [found[: self.context.passages] for found in hits])

    def prompts_with(self, examples: Sequence[Example], hits: Sequence[Sequence[Hit]]) -> list[Prompt]:
        """Return the prompts for questions with the passages that are given for each; the last that do not fit are
        dropped."""
        if self.context.threshold is not None:
            composed = (build_prompt(example, self.instruction) for example in examples)
            return [replace(prompt, hits=tuple(own)) for prompt, own in zip(composed, hits, strict=True)]
        return [
            self._fit_to_context(example, shots, own)
            for example, shots, own in zip(examples, self._shots(examples), hits, strict=True)
        ]

    def stream_prompts(self, examples: Iterable[Example]) -> Iterator[Prompt]:
        """Yield the prompts of `prompts`, some thousand composed at a time."""
        rows = iter(examples)
        while some := tuple(islice(rows, BLOCK)):
            yield from self.prompts(some)

    def answer(self, prompts: Sequence[Prompt], *, engine: Engine | None = None) -> list[Generation]:
        """Answer with the attached weights, text with `engine` if given; quotes if the context does."""
        return self.session.answer(prompts, engine=engine, quote=self.context.quote)

    def require_room(self, example: Example, answer_tokens: int) -> None:
        """Raise InputError if a question does not fit the model even without shots and passages; nothing is retrieved.

        Uses word and byte counts where they suffice: a far too long text is not tokenized either.
        """
        if not self.fits:
            return
        session, messages = self.session, build_prompt(example, self.instruction).messages
        fewest = session.encoder.fewest_tokens(messages)
        require_room(example.id, fewest, answer_tokens, session.context_tokens, at_least=True)
        if not self.context.is_instruction_alone:  # otherwise tokenizing the prompt decides
            require_room(example.id, len(session.encoder.prompt(messages)), answer_tokens, session.context_tokens)

    def retrieve(self, examples: Sequence[Example]) -> list[tuple[Hit, ...]]:
        """Return the retrieved passages of each example, best first, more than a prompt shows."""
        context = self.context
        if context.threshold is not None:
            return self.session.retriever.extract_sentences(examples, MOST_PASSAGES)
        return self.session.retriever.hits(
            examples,
            chunk_words=context.words,
            vector_weight=context.vector_weight,
            rerank=bool(context.rerank),
        )

    def _shots(self, examples: Sequence[Example]) -> list[list[Shot]]:
        """Return the shots of each example; a training row never gets itself as a shot."""
        if self._chosen:
            rows = self._chosen(examples, self.context.shots)
        else:
            rows = [[shot for shot in self.fixed if shot.input != example.input] for example in examples]
        self._to_shots(shot for row in rows for shot in row)
        return [[self._shown[shot.id] for shot in row] for row in rows]

    def _to_shots(self, shots: Iterable[Example]) -> None:
        """Return examples as shots: question and answer, with the right passage if the context says so."""
        new = list({shot.id: shot for shot in shots if shot.id not in self._shown}.values())
        hits = self.retrieve(new) if self.context.shot_passages else [()] * len(new)
        for shot, found in zip(new, hits, strict=True):
            right = [_shortened(hit, shot.references) for hit in self._gold_passages(shot, found)[:1]] if found else []
            question = with_passages(shot.input, right) if right else shot.input
            self._shown[shot.id] = question, shot.references[0]

    def training_prompts(
        self, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
    ) -> list[tuple[Prompt, str]]:
        """Return prompts with the answers to imitate.

        With passages (after RAFT, Zhang et al. 2024): the right passage is among the retrieved ones, added where
        retrieval missed it and removed from a share of the prompts; there the answer is the task's `unknown` if the
        data has such answers. Of the distractors beside a right passage a share is kept.
        """
        return [(prompt, answer) for _, prompt, answer in self.stream_training_prompts(examples, seed, mix)]

    def stream_training_prompts(
        self, examples: Sequence[Example], seed: int, mix: PassageMix = USUAL_MIX
    ) -> Iterator[tuple[Example, Prompt, str]]:
        """Yield each example with its prompt and answer of `training_prompts`, composed some thousand at a time."""
        abstains = bool(self.context.passages) and any(is_unknown(example, self.session) for example in examples)
        for start in range(0, len(examples), BLOCK):
            some = tuple(examples[start : start + BLOCK])
            if self.context.passages:
                composed = self._with_mixed_passages(some, seed, mix, abstains=abstains)
            else:
                composed = ((prompt, row.references[0]) for prompt, row in zip(self.prompts(some), some, strict=True))
            for example, (prompt, answer) in zip(some, composed, strict=True):
                yield example, prompt, answer

    def _with_mixed_passages(
        self, examples: Sequence[Example], seed: int, mix: PassageMix, *, abstains: bool
    ) -> Iterator[tuple[Prompt, str]]:
        """Return the prompts and answers of `training_prompts` in a context with passages."""
        hits, answers = [], []
        for example, found in zip(examples, self.retrieve(examples), strict=True):
            draw = random.Random(f"{seed}:{example.id}")
            right = self._gold_passages(example, found)
            missing = bool(right) and draw.random() < mix.gold_missing
            shown = [] if missing else right[:1]
            others = [hit for hit in found if hit not in right][: self.context.passages - len(shown)]
            if shown and mix.distractors < 1:
                others = [hit for hit in others if draw.random() < mix.distractors]
            picked = [*shown, *others]
            draw.shuffle(picked)
            hits.append(picked)
            answers.append(self.session.task.task.unknown if missing and abstains else example.references[0])
        return zip(self.prompts_with(examples, hits), answers, strict=True)

    def gold_retrieved(self, examples: Sequence[Example]) -> list[bool]:
        """Return, for each example, True if its prompt has a passage with the answer."""
        prompts = self.prompts(examples)
        return [bool(self.right_among(prompt.hits, row)) for row, prompt in zip(examples, prompts, strict=True)]

    def with_gold_passage(self, examples: Sequence[Example]) -> list[tuple[Example, Prompt]]:
        """Return the questions whose prompts lack a right passage that exists, with prompts that have it first."""
        lacking, hits = [], []
        for example, prompt in zip(examples, self.prompts(examples), strict=True):
            right = self._gold_passages(example, prompt.hits)
            if right and right[0] not in prompt.hits:
                lacking.append(example)
                hits.append([right[0], *prompt.hits[: self.context.passages - 1]])
        return list(zip(lacking, self.prompts_with(lacking, hits), strict=True))

    def right_among(self, hits: Sequence[Hit], example: Example) -> list[Hit]:
        """Return the passages with the answer; none where it is to abstain."""
        return [] if is_unknown(example, self.session) else [hit for hit in hits if _is_gold(hit, example)]

    def _gold_passages(self, example: Example, found: Sequence[Hit]) -> list[Hit]:
        """Return the passages with the answer: retrieved ones, else of the documents that the row names."""
        if is_unknown(example, self.session):
            return []
        right = self.right_among(found, example)
        if right or not example.passages:
            return right
        index = self.session.retriever.index_of(self.context.words)
        named = [document for document in index.documents if any(may_hold(document, name) for name in example.passages)]
        unranked = (Hit(passage=passage, rank=1, score=0.0) for passage in index.in_documents(named))
        return [hit for hit in unranked if _is_gold(hit, example)]

    def _fit_to_context(self, example: Example, shots: Sequence[Shot], hits: Sequence[Hit]) -> Prompt:
        """Return the prompt with as much context as fits: the least similar passages go first, then shots."""
        shots, hits = list(shots), list(hits)
        while True:
            prompt = build_prompt(example, self.instruction, shots, hits)
            if not self.fits or not (shots or hits) or self._has_room(prompt):
                return prompt
            if hits:
                hits.pop()
            else:
                shots.pop(0)

    def _has_room(self, prompt: Prompt) -> bool:
        room = self.session.context_tokens - self.session.output_tokens
        return len(self.session.encoder.prompt(prompt.messages)) <= room


def _is_gold(hit: Hit, example: Example) -> bool:
    """True if a passage contains an answer and is of a document that the row names, if it names any."""
    of_named = not example.passages or any(holds(hit.passage, name) for name in example.passages)
    return of_named and holds_answer(hit, example)


def holds_answer(hit: Hit, example: Example) -> bool:
    """True if a passage contains an answer, word for word."""
    text = hit.passage.text.casefold()
    return any(reference.casefold() in text for reference in example.references)


def _shortened(hit: Hit, references: Sequence[str]) -> Hit:
    """Return a passage cut to the sentence with an answer and its neighbours: shots must be short."""
    text_sentences = sentences(hit.passage.text)
    answers = [reference.casefold() for reference in references]
    folded = [sentence.casefold() for sentence in text_sentences]
    place = next((n for n, text in enumerate(folded) if any(answer in text for answer in answers)), None)
    if place is None:
        return hit
    text = " ".join(text_sentences[max(0, place - 1) : place + 2])
    return replace(hit, rank=1, passage=replace(hit.passage, text=text))


def is_unknown(example: Example, session: Session) -> bool:
    """True if the right answer of a row is to abstain."""
    return example.references[0].strip().casefold() == session.task.task.unknown.strip().casefold()


def draw_fixed_shots(pool: Sequence[Example], count: int, draw: int = 0) -> list[Example]:
    """Return the same examples for every question: drawn among short ones, each answer and group once if possible."""
    seed = ("shots", str(draw)) if draw else ("shots",)
    if not (count and pool):
        return []
    keys, lengths = np.empty(len(pool), "S32"), np.empty(len(pool), np.int32)
    for at, example in enumerate(pool):
        keys[at], lengths[at] = sha256_text(*seed, example.id)[:32].encode(), len(example.input)
    order = np.argsort(keys, kind="stable").astype(np.int32)
    is_short = lengths <= 2 * np.sort(lengths)[len(pool) // 2]
    picked: list[Example] = []
    seen: set[str] = set()
    for example in chain(select_rows(pool, order[is_short[order]]), select_rows(pool, order)):
        if len(picked) == count:
            return picked
        own = {example.references[0], example.group or example.id}
        if not own & seen:
            picked.append(example)
            seen |= own
    others = (example for example in select_rows(pool, order) if example not in picked)
    return [*picked, *islice(others, count - len(picked))]


class NearestShots:
    """Chooses the training examples most similar to the question, the most similar last; never the question itself."""

    def __init__(self, session: Session, pool: Sequence[Example]) -> None:
        self.session, self.pool = session, pool
        self._vectors_PD = session.retriever.embed([example.input for example in pool])

    def __call__(self, examples: Sequence[Example], count: int) -> list[list[Example]]:
        """Return `count` shots for each example."""
        if not examples:
            return []
        vectors_ND, chosen = self.session.retriever.embedder.encode([example.input for example in examples]), []
        at_once = max(1, MOST_COMPARED // max(1, len(self.pool)))
        for start in range(0, len(examples), at_once):
            alike_NP = vectors_ND[start : start + at_once] @ self._vectors_PD.T
            for example, row in zip(examples[start : start + at_once], alike_NP, strict=True):
                alike = (self.pool[place] for place in np.argsort(-row, kind="stable"))
                own = list(islice((shot for shot in alike if self._is_allowed(shot, example)), count))
                chosen.append(own[::-1])
        return chosen

    def _is_allowed(self, shot: Example, example: Example) -> bool:
        return shot.id != example.id and (shot.group is None or shot.group != example.group)


ShotChooser = Callable[[Sequence[Example], int], list[list[Example]]]
"""Chooses `count` training rows for each example."""
ShotChooserClass = Callable[[Session, Sequence[Example]], ShotChooser]
"""Makes one from the session and the training rows."""
