"""Adds the metric `within_a_tenth` and the command `trimtab units` to Trimtab."""

import re
from typing import Annotated

import typer

from trimtab.base.metrics import Metric, register_metric

NUMBER = re.compile(r"\d+(?:\.\d+)?")


def within_a_tenth(question: str, reference: str, answer: str) -> float:
    """Return 1 if the first number of the answer is within a tenth of the reference's, else 0."""
    given, right = NUMBER.search(answer), NUMBER.search(reference)
    if given is None or right is None:
        return 0.0
    return float(abs(float(given[0]) - float(right[0])) <= 0.1 * float(right[0]))


def add_records() -> None:
    """Add the metric; Trimtab calls this before it reads a task file."""
    register_metric(
        Metric(
            name="within_a_tenth",
            kinds=("answer", "generate"),
            score="trimtab_units:within_a_tenth",
            right_or_wrong=True,
            label="within a tenth",
            meaning="the share of answers whose first number is within a tenth of the reference's",
        )
    )


def units(
    answer: Annotated[str, typer.Argument(metavar="ANSWER", help="An answer with a number.")],
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="The right one.")],
) -> None:
    """Say whether one answer is within a tenth of another."""
    typer.echo("right" if within_a_tenth("", reference, answer) else "wrong")
