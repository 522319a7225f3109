"""Grammar of arm names such as `lora-docs+rag+few-shot`: the tables of methods, stages and context parts, and their
parser.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.base.records import Arm

PROMPT = "prompt"
HEAD = "head"  # stage: trains a classification head on the last token instead of generating label text
REWARD = "reward"  # stage: trains a reward head on the last token; the result scores answers and gives none
DISTILL = "distill"  # stage: imitates a teacher's answers instead of the examples' own
# Stages that learn from preferences, after the examples, with their names for readers.
PREFERENCES: Mapping[str, str] = {"dpo": "DPO", "ipo": "IPO", "simpo": "SimPO", "orpo": "ORPO", "kto": "KTO"}
JUDGED = (*PREFERENCES, REWARD)  # all stages that learn from preferences
# Stages of reinforcement learning from rewards of the model's own answers, after the examples.
REWARDED: Mapping[str, str] = {"rloo": "RLOO", "grpo": "GRPO", "ppo": "PPO"}


_NAME = re.compile(r"[a-z0-9-]+(\+[a-z0-9-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of producing weights. `words`: for readers. `staged`: True if the training loop trains it.

    `options`: the settings of an `[arm.NAME]` table that apply to it, beside those of every staged method; their
    defaults are those of its class. `trained_by`: the adapter layer or the virtual tokens that are trained, as a class
    or as "package.module:class"; None where the model's own weights are, or nothing is. `uses_base`: True if it runs
    the base model.
    """

    words: str
    staged: bool = False
    options: tuple[str, ...] = ()
    trained_by: type | str | None = None
    uses_base: bool = True
    answers_alone: bool = False  # the name takes no context
    no_head: str = ""  # why it cannot be combined with a classification head

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the names of the settings that apply."""
        return (*self.options, "learning_rate", "epochs", "batch") if self.staged else ()


_BEHIND_VIRTUAL = "a head reads one token, and what virtual tokens do to it no folder of PEFT or transformers can keep"
_LAYERS = "trimtab.model.adapters"
METHODS: dict[str, Method] = {  # `add_row` adds to it
    "base": Method(words="the model as it is"),
    "lora": Method(
        words="the model tuned by a small adapter (LoRA)",
        staged=True,
        trained_by=f"{_LAYERS}.lora:LoraLinear",
        options=("rank",),
    ),
    "freeze": Method(words="the model with its last layers tuned", staged=True, options=("layers",)),
    "full": Method(words="the model with all its weights tuned", staged=True),
    "dora": Method(
        words="the model tuned by a small adapter that also sets the length of each row of weights (DoRA)",
        staged=True,
        trained_by=f"{_LAYERS}.dora:DoraLinear",
        options=("rank",),
    ),
    "rslora": Method(
        words="the model tuned by a wide adapter whose scale follows its rank (rsLoRA)",
        staged=True,
        trained_by=f"{_LAYERS}.rslora:RsloraLinear",
        options=("rank",),
    ),
    "pissa": Method(
        words="the model tuned by an adapter that begins with the weights' largest directions (PiSSA)",
        staged=True,
        trained_by=f"{_LAYERS}.pissa:PissaLinear",
        options=("rank",),
    ),
    "vera": Method(
        words="the model tuned by two vectors a layer over random matrices (VeRA)",
        staged=True,
        trained_by=f"{_LAYERS}.vera:VeraLinear",
        options=("rank",),
    ),
    "ia3": Method(
        words="the model with its keys, values and inner activations stretched by vectors (IA3)",
        staged=True,
        trained_by=f"{_LAYERS}.ia3:Ia3Linear",
    ),
    "bitfit": Method(
        words="the model with a trained bias in every layer (BitFit)",
        staged=True,
        trained_by=f"{_LAYERS}.bitfit:BitFitLinear",
    ),
    "oft": Method(
        words="the model with the inputs of every layer rotated, block by block (OFT)",
        staged=True,
        trained_by=f"{_LAYERS}.oft:OftLinear",
        options=("rank",),
    ),
    "loha": Method(
        words="the model tuned by the elementwise product of two small adapters (LoHa)",
        staged=True,
        trained_by=f"{_LAYERS}.loha:LohaLinear",
        options=("rank",),
    ),
    "soft-prompt": Method(
        words="the model behind trained virtual tokens (a soft prompt)",
        staged=True,
        trained_by="trimtab.model.prompt_tuning:SoftPrompt",
        options=("virtual_tokens",),
        no_head=_BEHIND_VIRTUAL,
    ),
    "prefix": Method(
        words="the model behind trained keys and values in every layer (prefix tuning)",
        staged=True,
        trained_by="trimtab.model.prompt_tuning:LearnedPrefix",
        options=("virtual_tokens",),
        no_head=_BEHIND_VIRTUAL,
    ),
    "qlora": Method(
        words="the model in 4 bits, tuned by a small adapter (QLoRA)",
        staged=True,
        trained_by=f"{_LAYERS}.qlora:QloraLinear",
        options=("rank",),
    ),
    "linear": Method(
        words="no language model: a linear classifier over words or embeddings of the text",
        uses_base=False,
        answers_alone=True,
    ),
    "extract": Method(
        words="no language model: the sentence of the documents that answers, or that none does",
        uses_base=False,
        answers_alone=True,
    ),
    "api": Method(words="the model behind an endpoint", uses_base=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextPart:
    """One part of a context. `setting`: the setting for its number; `tried`: the numbers tried on dev.

    `words`: its name in tables; `sight`: in a sentence; `given`: in a sentence for readers who know no method.
    `chooser`: the class that chooses shots for each question, or "package.module:class"; None for the same shots
    before every question. `embeds`: True if the chooser embeds the training rows. A context has at most one part of
    each `setting`. A part without one adds nothing to the prompt: it constrains how the answer is made from what
    another part shows.
    """

    words: str
    sight: str
    given: str
    setting: str = ""
    usual: int = 0
    tried: tuple[int, ...] = ()
    chooser: Callable[..., Any] | str | None = None
    embeds: bool = False

    @property
    def is_fixed_shots(self) -> bool:
        """True for the same worked examples before every question."""
        return self.setting == "shots" and self.chooser is None


SENTENCE = 1  # as a number of words per passage: every sentence is a passage

# In prompt order: passages and how they are used, then shots. `add_row` adds to it.
PARTS: dict[str, ContextPart] = {
    "rag": ContextPart(
        setting="passages",
        usual=3,
        tried=(1, 3, 5),
        words="retrieved passages",
        sight="shown passages retrieved from the documents",
        given="given matching passages of your documents",
    ),
    "quote": ContextPart(
        words="answers quoted from them",
        sight="held to their words, or to those of abstaining",
        given="answering in their words",
    ),
    "few-shot": ContextPart(
        setting="shots",
        usual=4,
        tried=(2, 4, 8),
        words="fixed shots",
        sight="shown the same worked examples before every question",
        given="given a few worked examples",
    ),
    "nearest-shots": ContextPart(
        setting="shots",
        usual=4,
        tried=(2, 4, 8),
        words="nearest shots",
        sight="shown worked examples like the question before it",
        given="given worked examples like the question",
        chooser="trimtab.arms.contexts:NearestShots",
        embeds=True,
    ),
}

# Probes of `study.probes`, and what each asks of an arm.
PROBES: Mapping[str, str] = {
    "typing": "the same questions with typing errors, and in lower case without punctuation",
    "other-words": "the same questions in other words, by `study.rewords` or by rules for English",
    "other-language": "the same questions in `study.language`, by `study.rewords`",
    "retrieval": "the right passage taken out, distractors, another order, a contradiction, an outdated passage, an "
    "instruction hidden in a passage",
    "forgetting": "general abilities before and after training, on 300 questions that come with Trimtab",
}

# Baselines beside the arms of a study, and what each does: they answer without a language model, at next to no cost.
TRIVIAL: Mapping[str, str] = {
    "most-frequent": "giving every question the same answer",
    "always-unknown": "saying to every question that the answer is not known",
    "nearest-answer": "copying the answer of the most similar training question",
    "nearest-meaning": "copying the answer of the training question whose embedding is the most similar",
    "nearest-sentence": "copying the sentence of the documents that shares the most words with the question",
    "known-values": "copying the object of the most similar training question, with the known values that the question "
    "holds",
}


CONSTANT = ("most-frequent", "always-unknown")  # of TRIVIAL, the rules that read no question


_HEADS = {
    HEAD: "a head on its last token that names the label",
    REWARD: "a head on its last token that scores answers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """One stage of training. `words`: how it is trained, for readers; `learned_from`: from what.

    `objective`: from the set-up of a stage to its objectives, or "package.module:function". `later_rate`: its usual
    learning rate as a share of the method's, where it comes after another stage.
    """

    words: str
    learned_from: str
    objective: Callable[..., Any] | str
    later_rate: float = 1.0


_OBJECTIVES = "trimtab.arms.objectives"
FIRST_STAGES = ("docs", "sft")
# The stages of training; all but the first two stand last in an arm's name. `add_row` adds to it.
STAGES: dict[str, TrainingStage] = {
    "docs": TrainingStage(
        words="on the documents", learned_from="your documents", objective=f"{_OBJECTIVES}:build_supervised"
    ),
    "sft": TrainingStage(
        words="on the examples", learned_from="your examples", objective=f"{_OBJECTIVES}:build_supervised"
    ),
    HEAD: TrainingStage(
        words=f"with {_HEADS[HEAD]}", learned_from="your examples", objective=f"{_OBJECTIVES}:build_supervised"
    ),
    REWARD: TrainingStage(
        words=f"with {_HEADS[REWARD]}", learned_from="judged answers", objective=f"{_OBJECTIVES}:build_preference"
    ),
    DISTILL: TrainingStage(
        words="on a teacher's answers",
        learned_from="a teacher model's answers",
        objective=f"{_OBJECTIVES}:build_distill",
    ),
    **{
        name: TrainingStage(
            words=f"on judged answers ({words})",
            learned_from="judged answers",
            objective=f"{_OBJECTIVES}:build_preference",
            later_rate=0.01,  # with a tenth, pairs are ranked right after ten steps and the answers are ruined
        )
        for name, words in PREFERENCES.items()
    },
    **{
        name: TrainingStage(
            words=f"on what its own answers earn ({words})",
            learned_from="what its own answers earn",
            objective=f"{_OBJECTIVES}:build_policy_gradient",
            later_rate=0.1,
        )
        for name, words in REWARDED.items()
    },
}


def require_quotable(method: str, context: str) -> None:
    """Raise ValueError for a context that quotes, with a method whose tokens cannot be constrained."""
    if method == "api" and "quote" in parts_of(context):
        raise ValueError("what an endpoint writes cannot be held to passages; take quote out")


def require_arm(arm: Arm) -> None:
    """Raise ValueError for a record that is no valid arm: unknown method, stage or context, or an impossible name."""
    if not _NAME.fullmatch(arm.name):
        raise ValueError(f"{arm.name[:80]!r} is no name of an arm")
    if arm.weights not in METHODS or (arm.weights == "api") != (arm.endpoint is not None):
        raise ValueError(f"{arm.weights[:80]!r} is no method")
    method = METHODS[arm.weights]
    if not STAGES.keys() >= {*arm.stages} or method.staged != bool(arm.stages):
        raise ValueError(f"its stages are not those of {arm.weights}")
    if context_of(arm.context.split("+")) != arm.context or (method.answers_alone and arm.context != PROMPT):
        raise ValueError(f"{arm.context[:80]!r} is no context of {arm.weights}")
    require_quotable(arm.weights, arm.context)


def method_of(arm: Arm) -> Method:
    """Return the method of an arm."""
    return METHODS[arm.weights]


def is_trained(arm: Arm) -> bool:
    """True if something is fitted to the training rows: weights by the training loop, or a linear classifier."""
    return method_of(arm).staged or arm.weights == "linear"


def learns_from_rewards(arm: Arm) -> bool:
    """True if a stage is reinforcement learning from rewards of the arm's own answers."""
    return not REWARDED.keys().isdisjoint(arm.stages)


def imitates_teacher(arm: Arm) -> bool:
    """True if a stage distils a teacher."""
    return DISTILL in arm.stages


def shots_of(arm: Arm) -> str | None:
    """Return the kind of few-shot examples that an arm shows; None without any."""
    return next((part for part in arm.parts if PARTS[part].setting == "shots"), None)


def parts_of(context: str) -> tuple[str, ...]:
    """Return the parts of a context in prompt order; empty for the instruction alone."""
    return () if context == PROMPT else tuple(name for name in PARTS if name in context.split("+"))


def context_of(parts: Iterable[str]) -> str:
    """Return the canonical name of a context. Raises ValueError for parts that do not go together."""
    names = [name for name in parts if name != PROMPT]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no context; use {', '.join((PROMPT, *PARTS))}, or two joined by +")
    if "quote" in names and "rag" not in names:
        raise ValueError(f"quote needs passages to quote from; write {'+'.join(('rag', *names))}")
    settings = [PARTS[name].setting for name in names]
    if len(set(settings)) < len(settings):
        raise ValueError(f"{' and '.join(names)} do not go together; take one of them")
    return "+".join(name for name in PARTS if name in names) or PROMPT


def describe_context(context: str) -> str:
    """Return the name of a context for tables: `instruction`, `retrieved passages and fixed shots`."""
    return joined(PARTS[name].words for name in parts_of(context)) or "instruction"


def joined(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def describe_arm(arm: Arm, trained: Mapping[str, float] | None = None) -> str:
    """Return a description of an arm for readers. `trained`: figures that replace the configured epochs."""
    words = method_of(arm).words
    if method_of(arm).answers_alone:
        return words
    sight = joined(PARTS[name].sight for name in parts_of(arm.context)) or "with the instruction alone"
    steps = (trained or {}).get("steps")
    settings = {key: value for key, value in arm.settings.items() if not (steps and key == "epochs")}
    settings_text = [
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}"
        for key, value in settings.items()
    ]
    if trained and steps:
        epochs = f"{trained['epochs']:.3g} epoch{'s' if trained['epochs'] > 1 else ''}"
        settings_text.append(f"trained for {steps:,.0f} step{'s' if steps > 1 else ''}, {epochs}")
    own = ", ".join(settings_text)
    return f"{words}{_stages_in_words(arm.stages)}, {sight}{f' ({own})' if own else ''}"


def _stages_in_words(stages: Sequence[str]) -> str:
    """Return the training data of the weights in words; empty for the examples alone."""
    if stages in ((), ("sft",)):
        return ""
    if stages == ("docs",):
        return " on the documents alone"
    if stages in ((HEAD,), (REWARD,)):
        return f", with {_HEADS[stages[0]]}"
    return f" {', then '.join(STAGES[stage].words for stage in stages)}"


def arm_from_name(name: str) -> Arm | None:
    """Return the arm that a name of the grammar denotes; None for a name that is not of the grammar.

    The parts after the weights may stand in any order; the arm gets the canonical name. Raises ValueError for known
    parts that do not go together.
    """
    if name in TRIVIAL:
        raise ValueError("it is part of every study; leave it out")
    heads = [part for part in name.split("+") if part != PROMPT and part not in PARTS]
    rest = [part for part in name.split("+") if part not in heads]
    if len(heads) > 1 or (not heads and not rest):
        return None
    first = heads[0] if heads else "base"
    endpoint = first if first.startswith("api-") and first != "api-" else None
    method, between = ("api", []) if endpoint else _method_and_stages(first)
    row = METHODS.get(method)
    if row is None or (heads and method == "base") or (method == "api" and endpoint is None):
        return None
    begins = ["docs"] if between[:1] == ["docs"] else []
    ends = between[len(begins) :]
    if (between and not row.staged) or ends not in ([], *([last] for last in _last_stages())):
        return None
    headed = next((last for last in ends if last in _HEADS), None)
    if headed and row.no_head:
        raise ValueError(f"{method} takes no head ({row.no_head}); take {method}, or lora-{headed}")
    imitates = () if headed or ends == [DISTILL] else ("sft",)
    stages = (*begins, *imitates, *ends) if row.staged else ()
    if row.answers_alone and rest:
        raise ValueError(f"{method} stands by itself; take {'+'.join(rest)} out")
    if PROMPT in rest and (heads or len(rest) > 1):
        raise ValueError(
            f"the instruction is always there; write {'+'.join([*heads, *(p for p in rest if p != PROMPT)])}"
        )
    context = context_of(rest)
    require_quotable(method, context)
    weights = "" if method == "base" else endpoint or first
    return Arm(
        name="+".join(part for part in (weights, "" if weights and context == PROMPT else context) if part),
        weights=method,
        stages=stages,
        context=context,
        endpoint=endpoint.removeprefix("api-") if endpoint else None,
    )


def _method_and_stages(weights: str) -> tuple[str, list[str]]:
    """Split a name such as `soft-prompt-docs` into its method, whose name may contain hyphens, and its stages."""
    known = [name for name in METHODS if weights == name or weights.startswith(f"{name}-")]
    method = max(known, key=len, default="")
    return method, weights.removeprefix(method).split("-")[1:]


def _last_stages() -> list[str]:
    return [name for name in STAGES if name not in FIRST_STAGES]


def is_grammar_name(name: str) -> bool:
    """True if the grammar already gives a name a meaning, so that no custom arm may have it."""
    try:
        return arm_from_name(name) is not None
    except ValueError:
        return True


def nearest_name(name: str, others: Iterable[str] = ()) -> str | None:
    """Return the known name that is most similar to a mistyped one: of the grammar, or of `others`."""
    trained = [name for name, row in METHODS.items() if row.staged]
    contexts = ["rag+quote" if name == "quote" else name for name in PARTS]
    known = [PROMPT, *contexts, "rag+few-shot", "linear", "extract", *trained, *(f"{one}-docs" for one in trained)]
    known += [f"{one}-{stage}" for stage in _HEADS for one in trained if not METHODS[one].no_head]
    known += [f"{one}-{stage}" for one in trained for stage in _last_stages() if stage not in _HEADS]
    known += [f"{one}+{context}" for one in trained for context in contexts]
    near = difflib.get_close_matches(name, [*known, *others], n=1)
    return near[0] if near else None
