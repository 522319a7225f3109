"""The frozen records that the rooms hand each other: rows, documents, prompts, answers, arms. What is found out stands in `results.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["classify", "answer", "generate"]
Split = Literal["train", "dev", "test"]
Way = Literal["raw", "mean", "pmi", "batch"]
Failure = Literal[
    "none", "retrieval_miss", "misread", "undecided", "format", "abstained_wrongly", "should_have_abstained", "wrong"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled row: the turns up to the answer, and the answers that count as right (any of them).

    `messages` ends with a user (or tool) turn; earlier assistant turns may stand in it. `references[0]` is the answer that is
    trained on. For `classify`, `references` is the one label. `passages` names the documents (or their passages) that hold
    the answer, and `split` is where the row belongs, when the data says so. `tests`: code that an answer, itself code, is tested by.
    `time`: when the row is from (`base/times.py`), where the task file names its column.
    """

    id: str
    messages: tuple[Message, ...]
    references: tuple[str, ...]
    group: str | None = None
    slice: str | None = None
    weight: float = 1.0
    source: str | None = None
    licence: str | None = None
    passages: tuple[str, ...] = ()
    tests: str = ""
    time: str | None = None
    split: Split | None = None
    file: str = ""
    line: int = 0

    @property
    def input(self) -> str:
        """The text of the last turn: the question."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One judgement: a prompt with a better and a worse answer, or with one answer that is good (`chosen`) or bad (`rejected`)."""

    id: str
    messages: tuple[Message, ...]
    chosen: str | None
    rejected: str | None
    group: str | None = None
    weight: float = 1.0
    source: str | None = None
    licence: str | None = None
    file: str = ""
    line: int = 0

    @property
    def is_pair(self) -> bool:
        """Whether two answers are compared."""
        return self.chosen is not None and self.rejected is not None

    @property
    def asked(self) -> Example:
        """The prompt as a row: what it is split, compared and composed by; its reference is the answer that there is, the better first."""
        answer = self.chosen if self.chosen is not None else self.rejected
        return Example(
            id=self.id,
            messages=self.messages,
            references=(answer or "",),
            group=self.group,
            weight=self.weight,
            source=self.source,
            licence=self.licence,
            file=self.file,
            line=self.line,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row, or a whole file or sheet (line 0), that was not used, and why: one line of `refused.jsonl`."""

    file: str
    line: int
    reason: str
    remedy: str

    @property
    def is_file(self) -> bool:
        """Whether it is about a whole file or sheet."""
        return self.line == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A run of text under one heading; `path` holds the headings above it, outermost first."""

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as read: `id` is its path relative to where it was listed, `digest` the SHA-256 of its bytes."""

    id: str
    title: str
    source: str
    sections: tuple[Section, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document that can be retrieved and cited; `path` is its heading path."""

    id: str
    document: str
    title: str
    path: tuple[str, ...]
    text: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage as retrieved for one question: rank from 1, score higher is better.

    `similarity`: the cosine of its vector to the question's; None where only its words were searched.
    """

    passage: Passage
    rank: int
    score: float
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is asked: the turns, and the passages that were put into them."""

    id: str
    messages: tuple[Message, ...]
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Token ids of a conversation, and for each whether it is trained on (answer text and its end token)."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One answer as produced. `probability` is that of the chosen label (classify) or None; seconds are this answer's own.

    `cached_tokens`: of the prompt's, those that a beginning which was read before holds.
    `prefill_seconds` are those of reading the prompt, the rest decoding; None where they are not known apart.
    `plain_text` and `plain_probability`: what would be answered without the arm's calibration; None where there is none.
    """

    id: str
    text: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    prefill_seconds: float | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    finished: bool = True
    plain_text: str | None = None
    plain_probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One scored answer: a row of `answers.parquet`.

    `plain_right` and `plain_probability`, which are not kept there: whether the answer without the arm's calibration would be
    right, and its probability; None where there is no calibration. `time`: of its row, None without a column of times.
    """

    item_id: str
    split: Split
    group: str | None
    slice: str | None
    seed: int
    input: str
    reference: tuple[str, ...]
    answer: str
    score: float
    format_ok: bool
    abstained: bool
    probability: float | None
    seconds: float
    prompt_tokens: int
    new_tokens: int
    hits: tuple[Hit, ...]
    failure: Failure
    plain_right: bool | None = None
    plain_probability: float | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How an arm's label scores become probabilities: `calibration.json` of a run.

    A label's score is the sum of the log-probabilities of its tokens, or their mean where `per_token`; less its offset; over the
    temperature; a softmax over the labels gives the probabilities. Arms that score no text have the temperature alone, over the
    logarithms of their probabilities. `dev`: how many questions it was chosen on; 0 where they were too few.
    """

    way: Way = "raw"
    per_token: bool = False
    offsets: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    dev: int = 0


Setting = float | int | str | bool | Mapping[str, float]  # a mapping gives one value for each stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One candidate: how the weights are made and what the model sees; what they may be stands in `base/grammar.py`.

    `weights`: a method, `api` with its `endpoint`. `stages`: those it is trained in. `context`: `prompt`, or its parts joined by +.
    `settings`: overrides such as rank or learning_rate of an `[arm.NAME]` table.
    """

    name: str
    weights: str
    stages: tuple[str, ...]
    context: str
    endpoint: str | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """What stands before the question, `rag`, `few-shot` or `nearest-shots`, and whether it is quoted; empty for the instruction alone."""
        return () if self.context == "prompt" else tuple(self.context.split("+"))

    @property
    def retrieves(self) -> bool:
        """Whether passages are looked up for each question."""
        return "rag" in self.parts or self.weights == "extract"

    @property
    def identity(self) -> tuple[str, tuple[str, ...], str, str | None, Mapping[str, Setting]]:
        """Everything but the name: two arms of one identity are the same arm."""
        return self.weights, self.stages, self.context, self.endpoint, self.settings
