"""The report's vocabulary: what arms, contexts, metrics and failures are called, each in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from trimtab.base.records import Arm, Failure

Family = Literal["base", "tuned", "blend", "linear", "api"]
Shape = Literal["circle", "square", "diamond", "triangle"]


class ContextWords(NamedTuple):
    """What names a part of a context in tables, and in a sentence; and the shape that it gives to a mark."""

    words: str
    sight: str
    shape: Shape


INSTRUCTION = ContextWords("instruction", "asked with the instruction alone", "circle")
PARTS: Mapping[str, ContextWords] = {  # in the order in which they are written
    "rag": ContextWords("retrieved passages", "shown passages looked up in the documents", "diamond"),
    "few-shot": ContextWords("fixed shots", "shown the same worked examples before every question", "square"),
    "nearest-shots": ContextWords("nearest shots", "shown worked examples like the question before it", "square"),
}
ROWS = ("prompt", "few-shot", "nearest-shots", "rag", "rag+few-shot", "rag+nearest-shots")  # of the table of contexts
SHAPES: Mapping[Shape, str] = {
    "circle": "instruction alone",
    "square": "with shots",
    "diamond": "with passages",
    "triangle": "with shots and passages",
}
FAMILIES: Mapping[Family, str] = {
    "base": "base weights",
    "tuned": "tuned weights",
    "blend": "tuned weights with shots or passages",
    "linear": "linear classifier",
    "api": "endpoint",
}
METHODS = {
    "base": "the model as it is",
    "lora": "the model tuned by a small adapter (LoRA)",
    "freeze": "the model with its last layers tuned",
    "full": "the model with all its weights tuned",
    "linear": "no language model: a linear classifier over words or embeddings of the text",
    "api": "the model behind an endpoint",
}
METRICS = {  # name: what people call it, what it means
    "accuracy": ("accuracy", "the share of answers that are right"),
    "macro_f1": ("macro F1", "precision and recall joined, each class counting alike"),
    "exact_match": ("exact match", "the share of answers equal to a reference"),
    "token_f1": ("token F1", "how far the words of answer and reference overlap, from 0 to 1"),
    "rouge_l": ("ROUGE-L", "the longest common run of words of answer and reference, from 0 to 1"),
    "chrf": ("chrF", "how far the characters of answer and reference overlap, from 0 to 1"),
    "scorer": ("own scorer", "what the task’s own scorer gave, from 0 to 1"),
}
GRADED = ("token_f1", "rouge_l", "chrf", "scorer")
FAILURES: Mapping[Failure, tuple[str, str]] = {
    "retrieval_miss": ("passage not found", "The passage that holds the answer was not retrieved."),
    "misread": ("misread", "The right passage was there, and the answer still went wrong."),
    "format": ("format", "The answer does not fit the format that was asked for."),
    "abstained_wrongly": ("abstained wrongly", "It said that it does not know, though there is an answer."),
    "should_have_abstained": ("should have abstained", "It answered a question that has no answer here."),
    "wrong": ("wrong", "The answer is wrong in no more particular way."),
}
EXTRAS = {
    "ece": "Calibration error (ECE)",
    "lost_to_retrieval": "Lost to retrieval",
    "macro_f1": "Macro-F1",
    "mrr": "MRR",
    "prefill_seconds": "Reading the prompt, s",
    "decode_seconds": "Writing the answer, s",
    "same_alone": "Answers alike alone and in a batch",
    "train_tokens": "Training tokens",
    "steps": "Steps",
    "epochs": "Epochs",
    "skipped_rows": "Rows too long",
}
PRIVATE = {
    "email": "e-mail address",
    "card": "card number",
    "us_ssn": "social security number",
    "ipv4": "IP address",
    "phone": "phone number",
    "iban": "IBAN",
}


def parts_of(context: str) -> tuple[str, ...]:
    """The parts of a context, passages first; none for the instruction alone."""
    order = list(PARTS)
    parts = [part for part in context.split("+") if part not in ("", "prompt")]
    return tuple(sorted(parts, key=lambda part: order.index(part) if part in order else len(order)))


def _of(context: str) -> list[ContextWords]:
    """The words of each part, of the instruction where there is none; a part that is not known stands for itself."""
    parts = parts_of(context)
    return [PARTS.get(part, ContextWords(part, part, "circle")) for part in parts] or [INSTRUCTION]


def context_words(context: str) -> str:
    """A context in a few words: `instruction`, `retrieved passages and fixed shots`."""
    return " and ".join(part.words for part in _of(context))


def context_row(context: str) -> tuple[int, str]:
    """Where a context stands in a table of contexts: those that are not known come last."""
    return (ROWS.index(context) if context in ROWS else len(ROWS), context)


def shape(context: str) -> Shape:
    """The shape of an arm's mark, by what the model sees; shots and passages together have one of their own."""
    shapes = {part.shape for part in _of(context)} - {"circle"} or {"circle"}
    return shapes.pop() if len(shapes) == 1 else "triangle"


def family(arm: Arm) -> Family:
    """What decides the colour: base weights, tuned weights, tuned weights with more context, or another kind of model."""
    if arm.weights in ("base", "linear", "api"):
        return arm.weights  # type: ignore[return-value]
    return "tuned" if arm.context == "prompt" else "blend"


def endpoint(arm: Arm) -> str:
    """The endpoint of an arm with weights `api`, whose name alone tells it from another: `api-big` of `api-big+rag`."""
    return arm.name.split("+")[0]


def weights_called(arm: Arm) -> str:
    """How the weights were made: `lora`, `lora (docs, then sft)`, or the endpoint."""
    if arm.weights == "api":
        return endpoint(arm)
    stages = "" if arm.stages in ((), ("sft",)) else f" ({', then '.join(arm.stages)})"
    return arm.weights + stages


def in_words(arm: Arm) -> str:
    """What an arm is, for a reader who does not know its name."""
    method = METHODS.get(arm.weights, arm.weights)
    if arm.weights == "linear":
        return method
    order = " on the documents, then on the examples" if arm.stages == ("docs", "sft") else ""
    order = " on the documents alone" if arm.stages == ("docs",) else order
    own = _settings([*arm.settings.items()])
    sight = " and ".join(part.sight for part in _of(arm.context))
    return f"{method}{order}, {sight}{own}"


def _settings(settings: Sequence[tuple[str, object]]) -> str:
    own = ", ".join(
        f"{key.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}" for key, value in settings
    )
    return f" ({own})" if own else ""


def metric_called(metric: str) -> str:
    """The metric as people write it."""
    return METRICS[metric][0] if metric in METRICS else metric


def metric_means(metric: str) -> str:
    """The metric with what it means: `token F1: how far the words …`."""
    return ": ".join(METRICS.get(metric, (metric,)))


def extra_called(name: str) -> str:
    """`recall_at_3` as `recall@3`, and the words for the other measurements."""
    return EXTRAS.get(name, name.replace("_at_", "@").replace("_", " "))
