"""The report's vocabulary: the names of arms, contexts, metrics and failures, each in one place."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Literal

from trimtab.base.grammar import PARTS, SENTENCE, joined, method_of, parts_of
from trimtab.base.metrics import METRICS, default_metric, metrics_of
from trimtab.base.records import Arm, Failure
from trimtab.base.results import OWN_INSTRUCTION
from trimtab.measurement.groundedness import JUDGED_SENTENCES

Family = Literal["base", "tuned", "blend", "linear", "api"]
Shape = Literal["circle", "square", "diamond", "triangle"]


OF_SETTING: Mapping[str, Shape] = {
    "passages": "diamond",
    "shots": "square",
}  # the shape that each part of a context gives to a mark
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
    "linear": "no language model",
    "api": "endpoint",
}
FAILURES: Mapping[Failure, tuple[str, str]] = {
    "retrieval_miss": ("passage not found", "The passage that holds the answer was not retrieved."),
    "misread": ("misread", "The right passage was there, and the answer still went wrong."),
    "undecided": ("undecided", "Its words do not tell whether it is right; it counts as wrong."),
    "format": ("format", "The answer does not fit the format that was asked for."),
    "abstained_wrongly": ("abstained wrongly", "It said that it does not know, though there is an answer."),
    "should_have_abstained": ("should have abstained", "It answered a question that has no answer here."),
    "wrong": ("wrong", "The answer is wrong, and none of the other kinds fits."),
}
EXTRAS = {
    "answer_words": "Words an answer",
    "exact": "Exactly right",
    "facts_disagree": "Answers with other numbers or dates",
    "ece": "Calibration error (ECE)",
    "ece_by_chance": "ECE expected if calibrated",
    "ece_debiased": "Excess ECE",
    "ece_before": "ECE before calibration",
    "sentences_supported": "Sentences that the passages support (by facts and words)",
    "sentences_contradicted": "Sentences with other numbers or dates than the passages",
    "sentences_not_there": "Sentences that the passages do not say in these words",
    JUDGED_SENTENCES: "Sentences that the judge checked",
    "lost_to_retrieval": "Lost to retrieval",
    "mrr": "MRR",
    "prefill_seconds": "Reading the prompt, s",
    "decode_seconds": "Writing the answer, s",
    "same_alone": "Answers alike alone and in a batch",
    "score_alone": "Mean of scores alone, less in a batch",
    "unsure": "Undecided, counted as wrong",
    "untried": "In a language that the metric was not tried in",
    "train_tokens": "Training tokens",
    "steps": "Steps",
    "planned_steps": "Steps planned",
    "epochs": "Epochs",
    "skipped_rows": "Rows too long",
    "pair_accuracy": "Judged answers told right",
    "judged_pairs": "Judged answers held out",
}
# In place of those where the judge checked the sentences.
EXTRAS_BY_JUDGE = {
    "sentences_supported": "Sentences that the passages support (by the judge)",
    "sentences_contradicted": "Sentences that the passages contradict (by the judge)",
    "sentences_not_there": "Sentences that the passages do not say (by the judge)",
}
PRIVATE = {
    "email": "e-mail address",
    "card": "card number",
    "us_ssn": "social security number",
    "ipv4": "IP address",
    "phone": "phone number",
    "iban": "IBAN",
}


def context_row(context: str) -> tuple[bool, int, list[int]]:
    """Return the sort key of a context in the table of contexts: those without passages first, then those of fewer
    parts, in the order of the parts."""
    parts, order = parts_of(context), list(PARTS)
    shows_passages = any(PARTS[part].setting == "passages" for part in parts)
    return shows_passages, len(parts), [order.index(part) for part in parts]


def context_shape(context: str) -> Shape:
    """Return the shape of an arm's mark by its context; shots and passages together have a shape of their own."""
    shapes = {OF_SETTING[kind] for part in parts_of(context) if (kind := PARTS[part].setting)} or {"circle"}
    return shapes.pop() if len(shapes) == 1 else "triangle"


def arm_family(arm: Arm) -> Family:
    """Return the family that decides an arm's colour: base, tuned, tuned with context, linear model, or endpoint."""
    if method_of(arm).answers_alone:
        return "linear"
    if not method_of(arm).staged:
        return "api" if arm.endpoint else "base"
    return "tuned" if arm.context == "prompt" else "blend"


def weights_label(arm: Arm) -> str:
    """Return the name of the weights: `lora`, `lora (docs, then sft)`, or the endpoint."""
    if arm.weights == "api":
        return f"api-{arm.endpoint}"
    stages = "" if arm.stages in ((), ("sft",)) else f" ({', then '.join(arm.stages)})"
    return arm.weights + stages


def fact_disagreements(figures: Mapping[str, Mapping[str, float]]) -> str | None:
    """Return how many answers of each arm have other numbers or dates than the reference, which a metric of shared
    words hides; None if none."""
    counts = {arm: round(extras.get("facts_disagree", 0)) for arm, extras in figures.items()}
    disagreeing = [f"{number:,} of {arm}" for arm, number in counts.items() if number]
    if not disagreeing:
        return None
    paying = " or ".join(metric.label for metric in metrics_of("answer") if metric.counts_words)
    return (
        f"Answers with other numbers or dates than the reference: {joined(disagreeing)}. "
        f"{paying} pays for their words all the same; the metric {default_metric('answer').name} does not."
    )


def extra_label(name: str, beside: Container[str] = ()) -> str:
    """Return the label of an extra figure; `recall_at_3` becomes `recall@3`. `beside`: the figures measured with it."""
    if name in METRICS:
        return METRICS[name].heading_words
    if JUDGED_SENTENCES in beside and name in EXTRAS_BY_JUDGE:
        return EXTRAS_BY_JUDGE[name]
    return EXTRAS.get(name, name.replace("_at_", "@").replace("_", " "))


def settings_text(what: Mapping[str, object]) -> str:
    """Return settings as text: `4 shots, draw 2, learning rate 0.0013`."""
    phrases = []
    for name, value in what.items():
        if name in ("shots", "passages"):
            phrases.append(f"{value} {name if value != 1 else name[:-1]}")
        elif name == "chunk_words":
            phrases.append("sentences as passages" if value == SENTENCE else f"passages of {value} words")
        elif name == "threshold":
            phrases.append(f"answers from a probability of {value:g} up")
        elif name == "shot_passages":
            phrases.append("each shot under its passage")
        elif name == "rerank":
            phrases.append("passages in order again" if value else "passages as found")
        elif name == "shot_ids":
            phrases.append("worked examples " + ", ".join(f"{row[:12]}" for row in json.loads(str(value))))
        elif name == "instruction":
            phrases.append(str(value) if value == OWN_INSTRUCTION else f"“{value}”")
        else:
            figure = f"{value:.3g}" if isinstance(value, float) else str(value)
            phrases.append(f"{name.replace('_', ' ')} {figure}")
    return ", ".join(phrases)
