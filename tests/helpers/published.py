"""Small made files in the shapes that PubMedQA and CLINC150 are published in."""

from __future__ import annotations

from typing import Any

PARTS = {"train": 12, "oos_train": 4, "val": 5, "oos_val": 2, "test": 6, "oos_test": 3}


def of_pubmed(rows: int = 24) -> dict[str, Any]:
    """A dictionary by id in the fields of PubMedQA."""
    return {
        f"{21645374 + 97 * n}": {
            "QUESTION": f"Does treatment {n} help patients of ward {n * 7919 % 97}?",
            "CONTEXTS": [f"Ward {n} was treated for {n + 3} weeks.", f"Of {40 + n} patients {n} were better."],
            "LABELS": ["METHODS", "RESULTS"],
            "MESHES": ["Humans"],
            "YEAR": None if n % 9 == 0 else str(2000 + n % 7),
            "reasoning_required_pred": ["yes", "no"][n % 2],
            "final_decision": ["yes", "no", "maybe"][n % 3],
            "LONG_ANSWER": f"In ward {n} the treatment seems to have had effect number {n * 31 % 89}.",
        }
        for n in range(rows)
    }


def of_clinc() -> dict[str, list[list[str]]]:
    """A dictionary of splits, each a list of pairs, in the parts of CLINC150."""
    intents = ("balance", "transfer", "weather")
    return {
        part: [
            [
                f"{part.replace('_', ' ')} saying {n} of {n * 7919 % 97 + sum(map(ord, part)) * 1009} things",
                "oos" if part.startswith("oos") else intents[n % 3],
            ]
            for n in range(count)
        ]
        for part, count in PARTS.items()
    }
