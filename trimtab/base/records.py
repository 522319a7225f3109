"""Frozen records that the packages pass to each other: rows, documents, prompts, answers, arms. Results are in
`results.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
Kind = Literal["classify", "answer", "generate"]
AnswerForm = Literal["words", "json", "code"]
Split = Literal["train", "dev", "test"]
CalibrationMethod = Literal["raw", "mean", "pmi", "batch"]
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

    `messages` ends with a user (or tool) turn; earlier assistant turns are allowed. `references[0]` is the answer to
    train on; for `classify`, `references` is the one label. `passages`: the documents (or passages) that contain the
    answer. `split`: the split of the row, if the data state it. `tests`: code that tests an answer which is code
    itself. `time`: the time of the row (`base/times.py`), if the task file names its column.
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
        """Return the text of the last turn: the question."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """A prompt with a better and a worse answer, or with one answer judged good (`chosen`) or bad (`rejected`)."""

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
        """True if it compares two answers."""
        return self.chosen is not None and self.rejected is not None

    @property
    def as_example(self) -> Example:
        """Return the prompt as an example; its reference is the better, or only, answer."""
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
    """A row, or a whole file or sheet (line 0), that was not used, with the reason: one line of `refused.jsonl`."""

    file: str
    line: int
    reason: str
    remedy: str

    @property
    def is_file(self) -> bool:
        """True if it concerns a whole file or sheet."""
        return self.line == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A run of text under one heading; `path` holds the headings above it, outermost first."""

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as read. `id`: its path relative to where it was listed. `digest`: the SHA-256 of its bytes."""

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

    @property
    def shown(self) -> str:
        """Return the text below its title and headings, as models read it."""
        # The first heading is often the title itself, which is shown once.
        headings = [self.title, *(part for part in self.path if part != self.title)]
        return f"{' › '.join(headings)}\n{self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage retrieved for one question. `rank` counts from 1; a higher score is better.

    `similarity`: the cosine of its vector to the question's; None where only its words were searched.
    """

    passage: Passage
    rank: int
    score: float
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt: its turns, and the passages inserted into them."""

    id: str
    messages: tuple[Message, ...]
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Token ids of a conversation, and for each True if it is trained on (answer text and its end token)."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generated answer. `probability`: of the chosen label (classify), or None. `seconds`: of this answer alone.

    `cached_tokens`: the number of prompt tokens found in the prefix cache. `prefill_seconds`: of reading the prompt,
    the rest being decoding; None if not measured apart. `plain_text` and `plain_probability`: the answer without the
    arm's calibration; None without one. `model`: the name that an endpoint gives its model in the reply; else empty.
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
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One scored answer: a row of `answers.parquet`.

    `plain_right` and `plain_probability` (not stored there): the score of the answer without the arm's calibration,
    and its probability; None without one. `time`: of its row, None without a column of times.
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
    """Calibration of label scores to probabilities: `calibration.json` of a run.

    The score of a label is the sum of the log-probabilities of its tokens, or their mean if `per_token`. Its offset
    is subtracted, the result divided by the temperature, and a softmax over the labels gives the probabilities. Arms
    that do not score text have only the temperature, applied to the logarithms of their probabilities. `dev`: the
    number of questions it was chosen on; 0 if they were too few.
    """

    way: CalibrationMethod = "raw"
    per_token: bool = False
    offsets: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    dev: int = 0


Setting = float | int | str | bool | Mapping[str, float]  # a mapping has one value for each stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm: how its weights are produced and what its prompts contain; `base/grammar.py` has the possible values.

    `weights`: a method, or `api` with its `endpoint`. `stages`: its training stages. `context`: `prompt`, or its
    parts joined by +. `settings`: values of an `[arm.NAME]` table such as rank or learning_rate.
    """

    name: str
    weights: str
    stages: tuple[str, ...]
    context: str
    endpoint: str | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[str, ...]:
        """Return the parts of the context; empty for the instruction alone."""
        return () if self.context == "prompt" else tuple(self.context.split("+"))

    @property
    def retrieves(self) -> bool:
        """True if passages are retrieved for each question."""
        return "rag" in self.parts or self.weights == "extract"

    @property
    def identity(self) -> tuple[str, tuple[str, ...], str, str | None, Mapping[str, Setting]]:
        """Return everything but the name: arms with equal identity are the same arm."""
        return self.weights, self.stages, self.context, self.endpoint, self.settings
