"""Configuration of a task (`trimtab.toml`): every table and key, with its type, default and limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from string import ascii_uppercase
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from trimtab.base.grammar import (
    HEAD,
    METHODS,
    PARTS,
    PROBES,
    PROMPT,
    REWARD,
    STAGES,
    Method,
    context_of,
    parts_of,
    require_quotable,
)
from trimtab.base.records import Kind

BASE_MODEL, EMBEDDING = "smollm2-135m-q4", "minilm-l6"  # from the catalogue, which needs no model hub
COLUMNS = (
    "input",
    "output",
    "label",
    "id",
    "group",
    "slice",
    "weight",
    "source",
    "licence",
    "passage",
    "tests",
    "time",
)

SLOT = re.compile(r"\{([^{}]+)\}")
"""A place in an input template that names a column."""

MOST_PRICE = 1e9  # per hour or per million tokens, in any currency; with the other limits below, no total overflows

ROUNDING = 0.01  # tolerance for shares that must sum to 1

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(strict=False)]  # TOML has lists only
Day = Annotated[date, Field(strict=False)]


class Settings(BaseModel):
    """Base class of the tables: frozen; unknown keys are refused, and so are text or booleans in place of a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TaskTable(Settings):
    """`[task]`: the kind of task, its instruction and its metric."""

    name: str = Field(
        "", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the task; default: its folder's."
    )
    kind: Kind = Field(
        description="classify: one of a closed set; answer: short, with references, may abstain; generate: free "
        "text or code."
    )
    instruction: str = Field("", description="The instruction, sent as the system message.")
    metric: str = Field("", description="Default: accuracy, contains or rouge_l, by kind.")
    unknown: str = Field("I don't know", description="The answer that means abstaining.")
    labels: Texts = Field((), description="classify: read from the data when empty.")
    output_tokens: int | None = Field(
        None, ge=1, le=8192, description="Longest answer; default: the longest reference plus a margin."
    )
    format: str = Field(
        "",
        description="Regular expression (no look-around, no back-references) or JSON schema file that every answer "
        "should match.",
    )
    scorer: Texts = Field((), description="argv of a program that scores answers.")

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels and self.kind != "classify":
            raise ValueError(
                f'labels are for kind "classify", and this is {self.kind!r}; take labels out, or set the kind'
            )
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels names one twice; name each once")
        return self


class SplitTable(Settings):
    """`[data.split]`: the shares of the examples that are held out."""

    dev: float = Field(0.15, gt=0, lt=1, description="Share of the examples for choosing settings.")
    test: float = Field(0.25, gt=0, lt=1, description="Share of the examples for measuring the verdict.")
    seed: int = Field(0, description="Another seed gives another split.")

    @model_validator(mode="after")
    def _check_shares(self) -> SplitTable:
        if self.dev + self.test >= 1:
            raise ValueError("dev and test together must leave a share for training")
        return self


class DataTable(Settings):
    """`[data]`: the files of examples and documents."""

    examples: Texts = Field((), description="Files, globs, or a Hugging Face dataset id.")
    test: Texts = Field((), description="Files that are the test set.")
    documents: Texts = Field((), description="Folders or files: md, txt, html, pdf, docx, xlsx, pptx (or SQuAD JSON).")
    preferences: Texts = Field(
        (), description="Files of judged answers, for the stages dpo, ipo, simpo, orpo, kto and reward."
    )
    columns: Mapping[str, Text | Texts] = Field(
        default_factory=dict,
        description="Only columns that cannot be inferred; input: one column, several, or a template "
        '"{context}\n\n{question}"; time: the time of a row, which makes the newest rows the test set.',
    )
    layout: str = Field("", description="Name of the row layout, when it cannot be detected.")
    encoding: str = Field(
        "utf-8", description="Encoding of the files; a file in another one is refused, and its own is named."
    )
    group: str = Field("", description="A column whose groups of rows are never divided between splits.")
    slice: str = Field("", description="A column for whose values separate scores are reported.")
    mix: Mapping[Text, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="Shares of the slices in real traffic, if the test set has others: "
        '{ "billing" = 0.7, "other" = 0.3 }; they weight the scores.',
    )
    split: SplitTable = Field(SplitTable(), description="Shares of dev and test.")
    leakage: Literal["stop", "report", "drop"] = Field(
        "stop",
        description="Train rows that repeat dev or test rows: stop before training, report them, or drop them from "
        "train.",
    )
    train_on: Literal["all", "last"] = Field(
        "all", description="Of a conversation: train on every assistant turn, or on the last one."
    )
    canaries: int = Field(
        0,
        ge=0,
        le=1000,
        description="Number of memorisation canaries, made rows with random digits, to train on.",
    )

    @model_validator(mode="after")
    def _check_mix(self) -> DataTable:
        total = sum(self.mix.values())
        if self.mix and abs(total - 1) > ROUNDING:
            raise ValueError(f"mix sums to {total:g}; give shares of the whole traffic, which sum to 1")
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> DataTable:
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns.{name} is not a column role; use one of: {', '.join(COLUMNS)}")
            if name != "input" and not isinstance(self.columns[name], str):
                raise ValueError(f"columns.{name} names several columns; name one, only input may be made of several")
        asked = self.columns.get("input", ())
        if "input" in self.columns and not asked:
            raise ValueError("columns.input names no column; name one or more, or leave it out")
        inputs = (asked, *SLOT.findall(asked)) if isinstance(asked, str) else asked
        twice = next((self.columns[name] for name in ("output", "label") if self.columns.get(name) in inputs), None)
        if twice is not None:
            raise ValueError(
                f"column {twice!r} is named as question and as answer; name the column that holds the answer"
            )
        return self


class LabelsTable(Settings):
    """`[labels]`: how the labels of the data are read (classify only)."""

    merge: Mapping[Text, Text] = Field(
        default_factory=dict, description='Spellings that are read as another label: { "REFUND" = "refund" }.'
    )

    @model_validator(mode="after")
    def _check_label_source(self) -> Self:
        chained = next((name for name in self.merge.values() if name in self.merge), None)
        if chained is not None:
            raise ValueError(f"merge reads {chained!r} as another label and another as {chained!r}; name the last one")
        return self


class BaseTable(Settings):
    """`[base]`: the pretrained models."""

    model: Text = Field(BASE_MODEL, description="A catalogue name, a folder or a Hugging Face id.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hugging Face id.")
    embedding: Text = Field(
        EMBEDDING, description="Embedding model of retrieval and of linear: a catalogue name, a folder or an id."
    )
    reranker: Text | None = Field(
        None, description="Cross-encoder that orders retrieved passages: a folder or an id; default: none."
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="Data type of the frozen weights; auto: the faster one, measured once and then kept."
    )


# Benchmark: retrieval_sets.py. Names, numbers and rare words tell more than vectors of a small model.
VECTOR_WEIGHT = 0.25


class RetrievalTable(Settings):
    """`[retrieval]`: where the passages of the documents are kept, and how they are searched."""

    store: str = Field(
        "",
        description="Address of the store of the passages and their vectors: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, "
        "az://CONTAINER/FOLDER, or postgresql://USER@HOST/DATABASE with pgvector; default: .trimtab/ beside the task "
        "file.",
    )
    vector_weight: float = Field(
        VECTOR_WEIGHT,
        ge=0,
        le=1,
        description="Weight of the vector search against the search for words: 0 for words alone, 1 for vectors alone.",
    )

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: str) -> str:
        if store and "://" not in store:
            raise ValueError("store is no address; name one as s3://BUCKET/FOLDER, or leave it out for .trimtab/")
        return store


Weight = Annotated[float, Field(gt=0, le=1000)]


class ProgramPart(Settings):
    """A reward component that runs a program of the user, with the protocol of `task.scorer`."""

    argv: Annotated[Texts, Field(min_length=1)] = Field(description="The program and its arguments; no shell.")
    weight: Weight = Field(1.0, description="Its weight in the sum.")


class ModelPart(Settings):
    """A reward component that asks a trained reward model: the logistic function of its score."""

    run: Text = Field(description="The ID of a finished run of an arm that ends in reward (trimtab runs lists them).")
    weight: Weight = Field(1.0, description="Its weight in the sum.")


class RewardTable(Settings):
    """`[reward]`: the reward of an answer in reinforcement learning, a weighted sum of components in 0..1. Default: the
    metric alone.
    """

    metric: Weight | None = Field(None, description="The task's own metric.")
    exact_match: Weight | None = Field(None, description="Equal to a reference, as SQuAD compares.")
    token_f1: Weight | None = Field(None, description="Words in common with a reference, as SQuAD counts.")
    number: Weight | None = Field(None, description="The last number equals that of a reference.")
    format: Weight | None = Field(None, description="Matches task.format.")
    tests: Weight | None = Field(
        None, description="Code that passes the row's tests (data.columns.tests), run in a separate process."
    )
    length: Weight | None = Field(None, description="Not longer than the references.")
    citation: Weight | None = Field(None, description="Supported by a passage in the prompt.")
    program: ProgramPart | None = Field(None, description="A program of your own.")
    model: ModelPart | None = Field(None, description="A trained reward model.")

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights of the configured components; `{metric: 1}` if none is configured."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        weights = {
            name: part if isinstance(part, float) else float(part.weight)
            for name, part in named.items()
            if part is not None
        }
        return weights or {"metric": 1.0}


CriterionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]


class JudgeTable(Settings):
    """`[judge]`: the criteria by which answers are judged where the metric is `judged`, and the model that judges."""

    criteria: Annotated[Mapping[CriterionName, Text], Field(min_length=1, max_length=10)] = Field(
        description='Name and wording of each criterion: { complete = "Names every decision and its date." }.'
    )
    weights: Mapping[CriterionName, Weight] = Field(
        default_factory=dict, description="Weights of the criteria in an answer's score; default: equal."
    )
    by: Text = Field(
        "base",
        description="The judge: the NAME of an [api.NAME] table, base for the base model itself, another model (a "
        "catalogue name, a folder or a Hugging Face id), or an arm that was trained to judge: the task file of its "
        'study, "judging/trimtab.toml", with the arm behind # unless it is the one that study chose.',
    )
    against: Literal["reference"] | None = Field(
        None,
        description="reference: by each criterion the answer is compared with the row's first reference, in both "
        "orders; default: it is graded alone.",
    )
    groundedness: bool = Field(
        False,
        description="true: the judge also says of each sentence of an answer with passages whether these support it, "
        "contradict it, or do not say it, one judgement a sentence; default: facts and words tell.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.weights and set(self.weights) != set(self.criteria):
            lacking = sorted(set(self.weights) ^ set(self.criteria))[0]
            raise ValueError(f"weights and criteria differ in {lacking!r}; give every criterion a weight, or none")
        if self.trained and self.against:
            raise ValueError("an arm that was trained to judge grades answers alone; leave out `against`")
        if self.trained and self.groundedness:
            raise ValueError("an arm that was trained to judge reads no passages; leave out `groundedness`")
        return self

    @property
    def trained(self) -> tuple[str, str] | None:
        """Return the task file of an arm that was trained to judge, and the arm's name, empty for the one that its
        study chose; None for another judge."""
        file, _, arm = self.by.partition("#")
        return (file, arm) if file.endswith(".toml") else None

    @property
    def shares(self) -> dict[str, float]:
        """Return the weight of each criterion; they sum to 1."""
        weights = {name: float(self.weights.get(name, 1.0)) for name in self.criteria}
        total = math.fsum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


class TeacherTable(Settings):
    """`[teacher]`: the teacher of the stage `distill`: a model loaded beside the base model, or an endpoint."""

    model: Text | None = Field(None, description="A catalogue name, a folder or a Hugging Face id.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hugging Face id.")
    api: Text | None = Field(None, description="The NAME of an [api.NAME] table, whose answers are asked once.")
    proposes: bool = Field(
        False, description="true: it also rewrites instructions by reflection, which prompted arms try on dev."
    )

    @model_validator(mode="after")
    def _check_one_teacher(self) -> Self:
        if self.model is not None and self.api is not None:
            raise ValueError("names a model and an endpoint; take one of them out")
        if self.revision is not None and self.model is None:
            raise ValueError("revision is that of a model, and none is named; set model, or take it out")
        if self.proposes and self.model is None and self.api is None:
            raise ValueError("proposes needs a teacher; set model or api, or take it out")
        return self


AMOUNT = r"^([0-9]{1,9}(\.[0-9]{1,9})?([smh]| ?[A-Z]{3}))?$"  # of machine time or money; empty for none
AMOUNT_UNITS = f" smh{ascii_uppercase}"  # units of time, and the letters of a currency


def amount_of(text: str) -> tuple[float, str] | None:
    """Return an amount of machine time or money as a number and its unit: s, m, h or a currency; None if empty."""
    number = text.rstrip(AMOUNT_UNITS)
    return (float(number), text.removeprefix(number).strip()) if text else None


def _require_probe(name: str) -> str:
    if name not in PROBES:
        raise ValueError(f"{name[:80]!r} is no probe; use some of: {', '.join(PROBES)}")
    return name


ProbeName = Annotated[str, AfterValidator(_require_probe)]
Probes = Annotated[tuple[ProbeName, ...], Field(strict=False)]


class TargetTable(Settings):
    """`[target]`: the score and the latency that are good enough."""

    quality: float | None = Field(
        None, gt=0, le=1, description="The lowest score that is good enough, in the metric; default: none."
    )
    margin: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Without a target: the largest difference from the best arm that counts as not worse.",
    )
    latency_p95_ms: float | None = Field(
        None, gt=0, description="Limit on the 95th percentile of the time for one answer; default: none."
    )
    probes: Probes = Field(
        (), description="Probes of `study.probes` that an arm must stand to be good enough; all arms are probed then."
    )
    point: str = Field(
        "",
        pattern=AMOUNT,
        description="What a point of 100 below the target, or without a target behind the best arm, is worth in a "
        "month: money (`20 USD`) or machine time (`2h`).",
    )

    @field_validator("point")
    @classmethod
    def _check_point(cls, point: str) -> str:
        if (amount := amount_of(point)) and amount[0] == 0:
            raise ValueError("a point that is worth nothing would always take the cheapest arm; leave it empty")
        return point


Effort = Literal["none", "standard", "thorough"]


class StudyTable(Settings):
    """`[study]`: the arms to compare and the budget."""

    arms: Texts = Field((), description="Names of the arms to compare; empty: those that fit the kind and the data.")
    seeds: int = Field(1, ge=1, le=20, description="Number of training runs per arm.")
    budget: str = Field(
        "",
        pattern=AMOUNT,
        description="30m, 2h, 90s, or 20 USD where cost.machine_hour states a price; empty: no limit.",
    )
    test_rows: Annotated[int, Field(ge=2)] | Literal["all", "auto"] = Field(
        "all",
        description="Number of test questions: all, a number (a sample), or auto: fewer if an arm would not fit the "
        "budget, with a note on the loss of power. Unless stated, fewer only if fewer than two arms would fit.",
    )
    effort: Effort = Field(
        "standard",
        description="Search on dev, with the same machine time for every arm: none (the defaults), standard, thorough.",
    )
    learning_curve: bool = Field(
        False, description="Also train every trained arm on 25 and 50% of the rows, to see if more data would help."
    )
    probes: Probes = Field(
        (),
        description="Questions that the test set does not ask, put to the arm to take: "
        + "; ".join(f"`{name}`: {what}" for name, what in PROBES.items())
        + ".",
    )
    rewords: str = Field(
        "",
        description="`NAME` of the endpoint `[api.NAME]` that sees test questions and asks them in other words, and in "
        "`study.language`.",
    )
    language: str = Field("", max_length=40, description="Probe `other-language`: what is asked in, such as `German`.")

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, budget: str) -> str:
        if (amount := amount_of(budget)) and amount[0] == 0:
            raise ValueError("a budget of nothing leaves nothing to run; leave it empty for no limit")
        return budget


PeakRate = Annotated[float, Field(gt=0, lt=1)]
Epochs = Annotated[float, Field(gt=0, le=1000)]


def _require_stage(name: str) -> str:
    if name not in STAGES:
        raise ValueError(f"{name[:80]!r} is no stage; use one of: {', '.join(STAGES)}")
    return name


StageName = Annotated[str, AfterValidator(_require_stage)]


class ArmTable(Settings):
    """`[arm.NAME]`: an arm of the user's own: a method, its stages, a context, and the settings that differ from the
    defaults.

    `learning_rate` and `epochs` are one number, or one for each stage: `{ docs = 1e-4, sft = 5e-4 }`.
    """

    weights: str = Field("base", description="A method, or api-NAME.")
    stages: Annotated[tuple[StageName, ...] | None, Field(strict=False)] = Field(
        None, description=f"Stages of training, in order ({', '.join(STAGES)}); default: sft."
    )
    context: str = Field(
        PROMPT, description="prompt, few-shot, nearest-shots, rag, rag+quote, or either of these with one of the shots."
    )
    rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of LoRA and its variants; of oft, the size of a block."
    )
    learning_rate: PeakRate | Mapping[str, PeakRate] | None = Field(
        None, description="Peak learning rate, or one for each stage."
    )
    epochs: Epochs | Mapping[str, Epochs] | None = Field(
        None, description="Passes over the train rows, or one number for each stage."
    )
    batch: int | None = Field(None, ge=1, le=65536, description="Examples of one optimizer step.")
    layers: int | None = Field(None, ge=1, description="freeze: how many of the last layers are trained.")
    virtual_tokens: int | None = Field(
        None, ge=1, le=1024, description="soft-prompt, prefix: trained tokens before every prompt."
    )
    shots: int | None = Field(None, ge=1, le=64, description="few-shot, nearest-shots: worked examples in the prompt.")
    passages: int | None = Field(None, ge=1, le=64, description="rag: passages in the prompt.")

    @field_validator("weights")
    @classmethod
    def _check_method(cls, weights: str) -> str:
        methods = [name for name, row in METHODS.items() if not row.answers_alone and name != "api"]
        if weights not in methods and not weights.startswith("api-"):
            raise ValueError(f"{weights[:80]!r} is no method; use one of: {', '.join(methods)}, or api-NAME")
        return weights

    @field_validator("context")
    @classmethod
    def _check_context(cls, context: str) -> str:
        return context_of(context.split("+"))

    @model_validator(mode="after")
    def _check_settings_apply(self) -> Self:
        """Refuse a setting that the arm does not use: it was meant for another arm."""
        method = METHODS["api" if self.weights.startswith("api-") else self.weights]
        require_quotable("api" if self.weights.startswith("api-") else self.weights, self.context)
        named = {PARTS[part].setting for part in parts_of(self.context)}
        for name in ("rank", "layers", "virtual_tokens", "learning_rate", "epochs", "batch", "shots", "passages"):
            if getattr(self, name) is None or name in method.settings or name in named:
                continue
            fitting = [part for part, row in PARTS.items() if row.setting == name]
            key, own = ("context", self.context) if fitting else ("weights", self.weights)
            fitting = fitting or [other for other, row in METHODS.items() if name in row.settings]
            choice = " or ".join(f'"{one}"' for one in fitting)
            raise ValueError(f"{name} is not used where {key} is {own!r}; set {key} = {choice}, or take {name} out")
        if self.stages is not None:
            self._check_stages(self.stages, method)
        for name in ("learning_rate", "epochs"):
            by_stage = getattr(self, name)
            strange = sorted(set(by_stage) - {*self.stages_trained}) if isinstance(by_stage, Mapping) else []
            if strange:
                raise ValueError(
                    f"{name} names the stage {strange[0]!r}, which this arm has not; take it out, or set stages"
                )
        return self

    def _check_stages(self, stages: Sequence[str], method: Method) -> None:
        """Refuse stages that the method does not train, or not in this order."""
        if not method.staged:
            raise ValueError(
                f'stages train nothing where weights is {self.weights!r}; set weights = "lora", or take stages out'
            )
        if not stages or len(set(stages)) < len(stages):
            raise ValueError('stages is empty or names a stage twice; use ["sft"], ["docs", "sft"] or ["docs"]')
        for head in {HEAD, REWARD}.intersection(stages):
            if head != stages[-1]:
                raise ValueError(f"stages go on after the head; put {head} last")
            if method.no_head:
                raise ValueError(f"{self.weights} takes no head ({method.no_head}); take {head} out of stages")

    @property
    def stages_trained(self) -> tuple[str, ...]:
        """Return the stages in order; `sft` alone if none is set."""
        staged = not self.weights.startswith("api-") and METHODS[self.weights].staged
        return (self.stages or ("sft",)) if staged else ()


class TokenPrice(Settings):
    """Price of a million tokens of an endpoint."""

    input: float = Field(ge=0, le=MOST_PRICE, description="Price of a million tokens sent.")
    output: float = Field(ge=0, le=MOST_PRICE, description="Price of a million tokens received.")
    as_of: Day = Field(description="Date of the price.")
    source: str = Field(description="Where the price comes from.")

    def fee(self, prompt_tokens: float, new_tokens: float) -> float:
        """Return the price of so many tokens sent and received."""
        return (prompt_tokens * self.input + new_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointKind:
    """A kind of endpoint. `protocol`: the `Protocol` of its requests and replies, or "package.module:name" of one.

    `writes_text`: True if it answers with text; otherwise it chooses among the labels of a task of kind classify.
    """

    protocol: Any
    writes_text: bool = False


# By the name that `api` in an [api.NAME] table has; `add_row` adds to it.
ENDPOINT_KINDS: dict[str, EndpointKind] = {
    "chat": EndpointKind(protocol="trimtab.inference.protocols:CHAT", writes_text=True),
    "systemone": EndpointKind(protocol="trimtab.inference.protocols:SYSTEM_ONE"),
    "decisions": EndpointKind(protocol="trimtab.inference.protocols:DECISIONS"),
}


class ApiTable(Settings):
    """`[api.NAME]`: an endpoint, measured as the arm `api-NAME`: OpenAI-compatible or, for classify, one that chooses
    among labels.
    """

    api: str = Field(
        "chat", description="chat: returns text; systemone, decisions: gets the labels, returns their probabilities."
    )
    url: str = Field(pattern=r"^https?://\S+$", description="Address of the API, up to /v1.")
    model: str = Field(description="Name of the model at the endpoint.")
    key_env: str | None = Field(None, description="Environment variable that holds the key.")
    proposes: bool = Field(
        False, description="true: it also rewrites instructions by reflection, which prompted arms try on dev."
    )
    price_per_million: TokenPrice | None = Field(
        None, description="Prices of tokens; without them the arm has no cost."
    )

    @model_validator(mode="after")
    def _check_proposes(self) -> Self:
        if self.proposes and not self.writes_text:
            raise ValueError(
                f'proposes needs an endpoint that writes; set api = "chat" (it is {self.api!r}), or take it out'
            )
        return self

    @property
    def writes_text(self) -> bool:
        """True if the endpoint answers with text, not with a choice among labels."""
        return ENDPOINT_KINDS[self.api].writes_text

    @field_validator("api")
    @classmethod
    def _check_api(cls, api: str) -> str:
        if api not in ENDPOINT_KINDS:
            raise ValueError(f"{api[:80]!r} is no kind of endpoint; use one of: {', '.join(ENDPOINT_KINDS)}")
        return api

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a name or a password; put the key into a variable and name it in key_env")
        try:
            named = bool(parts.hostname) and parts.port != 0
        except ValueError:
            named = False
        if not named:
            raise ValueError("names no host, or a port that cannot be; write it as http://host:port/v1")
        return url


class HourPrice(Settings):
    """Price of a machine for one hour."""

    price: float = Field(ge=0, le=MOST_PRICE, description="Price of one hour.")
    as_of: Day = Field(description="Date of the price.")
    source: str = Field(description="Where the price comes from.")


class ChangingFacts(Settings):
    """One kind of facts, all of which change at the same rate."""

    share: float = Field(ge=0, le=1, description="Share of the questions that are about facts of this kind.")
    per_month: float = Field(ge=0, le=1_000, description="How often one such fact changes in a month.")


class ChangeTable(Settings):
    """`[cost.change]`: how fast facts change: `share` and `per_month` for one rate, or `kinds` with a rate each."""

    share: float | None = Field(
        None, ge=0, le=1, description="Share of the questions that are about facts that change; needs per_month."
    )
    per_month: float | None = Field(
        None, ge=0, le=1_000, description="How often one such fact changes in a month; needs share."
    )
    kinds: Annotated[tuple[ChangingFacts, ...], Field(strict=False)] = Field(
        (),
        description="Kinds of facts that change at different rates, each with share and per_month, instead of those "
        "two keys.",
    )
    lead_days: float = Field(ge=0, le=36_500, description="Days from new data to a retrained model.")
    watched_months: float | None = Field(
        None, gt=0, le=1_200, description="For how many months changes were watched; needs bursts."
    )
    bursts: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="On how many occasions facts changed in watched_months, such as releases; facts that change "
        "together are one.",
    )

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if (self.watched_months is None) != (self.bursts is None):
            raise ValueError("needs either both watched_months and bursts, or neither")
        one = (self.share is not None, self.per_month is not None)
        if all(one) == bool(self.kinds) or any(one) != all(one):
            raise ValueError("needs either both share and per_month, or kinds")
        if math.fsum(kind.share for kind in self.kinds) > 1 + 1e-9:
            raise ValueError("the shares of the kinds add up to more than 1; give each its share of all questions")
        return self

    @property
    def rates(self) -> tuple[tuple[float, float], ...]:
        """Return the share and the monthly rate of each kind of changing facts."""
        if self.kinds:
            return tuple((kind.share, kind.per_month) for kind in self.kinds)
        return ((self.share or 0.0, self.per_month or 0.0),)

    def changed(self, months: float) -> float:
        """Return the expected share of questions whose fact has changed after some months: Σ w (1 - exp(-λt))."""
        return math.fsum(share * -math.expm1(-rate * months) for share, rate in self.rates)

    def at_pace(self, factor: float) -> ChangeTable:
        """Return a copy with all rates multiplied by `factor`."""
        if not self.kinds:
            return self.model_copy(update={"per_month": (self.per_month or 0.0) * factor})
        faster = tuple(kind.model_copy(update={"per_month": kind.per_month * factor}) for kind in self.kinds)
        return self.model_copy(update={"kinds": faster})


class LabelPrice(Settings):
    """Cost of one labelled row: a price, or minutes of work at a wage."""

    price: float | None = Field(None, ge=0, le=MOST_PRICE, description="Price of one labelled row.")
    minutes: float | None = Field(None, ge=0, le=100_000, description="Minutes of work for one row; needs wage.")
    wage: float | None = Field(None, ge=0, le=MOST_PRICE, description="Price of one hour of that work.")

    @model_validator(mode="after")
    def _check_one_price(self) -> Self:
        works = (self.minutes is not None, self.wage is not None)
        if (self.price is None) != all(works) or any(works) != all(works):
            raise ValueError("needs either price, or both minutes and wage")
        return self

    @property
    def each(self) -> float:
        """Return the price of one labelled row."""
        return self.price if self.price is not None else (self.minutes or 0.0) / 60 * (self.wage or 0.0)


class CostTable(Settings):
    """`[cost]`: the user's prices and volume. Without a volume the reports state that 10,000 questions a month are
    assumed.
    """

    currency: str = Field("USD", description="Currency of every price.")
    machine_hour: HourPrice | None = Field(
        None, description="Price of the machine; without it costs are machine seconds."
    )
    hosting: Literal["always-on", "on-demand"] = Field(
        "always-on", description="always-on: machines are paid whole; on-demand: by the second of use."
    )
    utilisation: float = Field(
        0.6, ge=1e-6, le=1, description="always-on: share of the time in which a machine is busy."
    )
    questions_per_month: float = Field(
        10_000, ge=0, le=1e12, description="Volume; reports mark the default as assumed."
    )
    horizon_months: float = Field(12, ge=1e-3, le=1_200, description="Months over which costs are added up.")
    change: ChangeTable | None = Field(None, description="How fast facts change; without it nothing is retrained.")
    label: LabelPrice | None = Field(None, description="Price of a labelled row; without it labels count as free.")

    @model_validator(mode="after")
    def _check_currency(self) -> Self:
        if self.label is not None and self.machine_hour is None:
            raise ValueError("label needs machine_hour: a price cannot be added to machine seconds")
        return self
