"""Writes a realistic, seeded, synthetic study folder, laid out as formats.md says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from arm_files import write_arm_file

from trimtab.base.files import FORM, write_own
from trimtab.measurement.evaluate import answers_schema

ARMS = {
    "prompt": ("base", [], "prompt", 0.31),
    "few-shot": ("base", [], "few-shot", 0.42),
    "rag": ("base", [], "rag", 0.66),
    "lora": ("lora", ["sft"], "prompt", 0.58),
    "lora+rag": ("lora", ["sft"], "rag", 0.87),
}
SUBJECTS = (
    "the parking permit",
    "a lost badge",
    "the travel allowance",
    "parental leave",
    "the laptop refresh",
    "remote work abroad",
    "the canteen card",
    "the on-call bonus",
    "a visitor pass",
    "the training budget",
)
QUESTIONS = (
    "How long does it take to get {}?",
    "Who has to approve {}?",
    "What does {} cost per year?",
    "Where do I apply for {}?",
    "When was {} last changed?",
)
ANSWERS = (
    "{} working days after the form is in.",
    "The office manager on floor {} approves it.",
    "It costs {} euros per year.",
    "At the service desk in building {}.",
    "On {} March 2026.",
)
SLICES = ("benefits", "security", "rare topics")


def write_study(
    folder: Path, *, items: int = 300, arms: tuple[str, ...] = tuple(ARMS), seed: int = 7, hostile: str = ""
) -> Path:
    """A study of `arms` on `items` questions; `hostile` text is put into questions, answers and remarks."""
    draw = random.Random(seed)
    rows = {name: _answers(name, items, draw, hostile) for name in arms}
    for name, answers in rows.items():
        place = folder / "arms" / name
        place.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.Table.from_pylist(answers, schema=answers_schema()), place / "answers.parquet")
        write_arm_file(place, name)
    scores = {name: [row["score"] for row in answers] for name, answers in rows.items()}
    best = max(arms, key=lambda name: sum(scores[name]))
    study = {
        "study": "20261124T141502-3f9a1c",
        "task": "handbook",
        "metric": "token_f1",
        "target": 0.8,
        "verdict": {
            "status": "shown",
            "arm": best,
            "sentence": f"Use {best}: it reaches 0.80 token F1 on the handbook questions, and no lighter arm "
            f"does.{hostile}",
            "flips": [
                {"what": "questions_per_month", "below": 12000, "then": "rag"},
                {"what": "target", "below": 0.62, "then": "rag"},
            ],
            "needs": None,
        },
        "arms": [_entry(name, index, scores[name]) for index, name in enumerate(arms)],
        "comparisons": [_comparison(best, name, scores) for name in arms if name != best],
        "report": "report.html",
        "volume": {"questions_per_month": 100_000, "horizon_months": 12, "assumed": False},
    }
    write_own(folder / "study.json", study)
    write_own(folder / "manifest.json", _manifest(hostile))
    (folder / "task.toml").write_text(
        '[task]\nname="handbook"\nkind="answer"\n[target]\nquality=0.8\nlatency_p95_ms=1500\n'
        '[cost]\ncurrency="USD"\nmachine_hour={price=0.4, as_of=2026-11-01, source="our contract"}\n'
        "questions_per_month=100000\n"
    )
    events = [{**event, "form": FORM} for name in arms for event in _events(name, draw)]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def _answers(name: str, items: int, draw: random.Random, hostile: str) -> list[dict[str, Any]]:
    _, _, context, level = ARMS[name]
    found = []
    for index in range(items):
        kind = index % len(QUESTIONS)
        subject = SUBJECTS[(index // len(QUESTIONS)) % len(SUBJECTS)]
        right = ANSWERS[kind].format(3 + index % 17)
        unanswerable = index % 12 == 11
        reference = "I don't know" if unanswerable else right
        hit = draw.random() < level
        if hit:
            answer, score, failure = reference, 1.0, "none"
        else:
            failure = draw.choice(
                ["retrieval_miss", "misread"] if context == "rag" else ["wrong", "wrong", "abstained_wrongly"]
            )
            failure = "should_have_abstained" if unanswerable else failure
            score = 0.0 if failure in ("abstained_wrongly", "should_have_abstained") else round(draw.uniform(0, 0.6), 3)
            answer = "I don't know" if failure == "abstained_wrongly" else ANSWERS[kind].format(60 + draw.randrange(30))
        passages = [
            {"id": f"office/{place}#2", "source": f"handbook/{place}.md", "rank": place, "score": 1 / (60 + place)}
            for place in range(1, 4)
        ]
        found.append(
            {
                "item_id": f"q{index:04d}",
                "split": "test",
                "group": f"fact{index // 2}",
                "slice": SLICES[min(index % 10, 2)] if index % 10 < 3 else SLICES[0],
                "seed": 17,
                "input": QUESTIONS[kind].format(subject) + hostile,
                "reference": [reference],
                "answer": answer + hostile,
                "score": score,
                "format_ok": True,
                "abstained": answer == "I don't know",
                "probability": None,
                "seconds": round(draw.uniform(0.2, 0.6), 3),
                "prompt_tokens": 80,
                "new_tokens": 12,
                "passages": passages if context == "rag" else [],
                "failure": failure,
            }
        )
    return found


def _entry(name: str, index: int, scores: list[float]) -> dict[str, Any]:
    _, stages, context, _ = ARMS[name]
    mean = sum(scores) / len(scores)
    latency = {"prompt": 210, "few-shot": 470, "rag": 640, "lora": 225, "lora+rag": 655}[name]
    total = {"prompt": 402.0, "few-shot": 655.0, "rag": 803.0, "lora": 411.0, "lora+rag": 812.0}[name]
    return {
        "arm": name,
        "status": "done",
        "score": mean,
        "low": max(0.0, mean - 0.045),
        "high": min(1.0, mean + 0.043),
        "n": len(scores),
        "seeds": 1,
        "seed_scores": [mean],
        "passes": mean > 0.84,
        "p_target": 0.0031 if mean > 0.84 else 1.0,
        "format_ok": 1.0,
        "abstention": {"precision": 0.71 + 0.04 * index, "recall": 0.52 + 0.08 * index},
        "slices": {
            key: {
                "score": mean - 0.06 * at,
                "low": mean - 0.06 * at - 0.05 * (at + 1),
                "high": mean - 0.06 * at + 0.04 * (at + 1),
                "n": 240 // (at + 1) ** 2,
            }
            for at, key in enumerate(SLICES)
        },
        "train_seconds": 214.0 if stages else 0.0,
        "peak_memory_mb": 1450 + 900 * bool(stages),
        "stored_bytes": 19_500_000 if stages else 0,
        "latency_p50_ms": latency * 0.6,
        "latency_p95_ms": latency,
        "latency_p95_high_ms": latency * 1.2,
        "seconds_per_question": latency / 2000,
        "cost": {"total": total, "up_front": 3.1 if stages else 0.4, "monthly": total / 12, "currency": "USD"},
        "chosen": CHOSEN.get(context, {}),
        "effort": _effort(name),
        "learning": _learning() if stages else None,
        **({"exposure": EXPOSURE} if stages else {}),
    }


REWRITTEN = "Name the queue.\nOne word, no more."


CHOSEN = {"few-shot": {"shots": 4, "instruction": REWRITTEN}, "rag": {"passages": 3}}


def _effort(name: str) -> dict[str, Any]:
    """Rates for what is trained, wordings for the rest; one arm was still getting better."""
    trained = bool(ARMS[name][1])
    named: list[dict[str, Any]] = [{"learning_rate": rate, "epochs": 3.0} for rate in (1.3e-3, 3.3e-3, 5.2e-4)]
    asked: list[dict[str, Any]] = [{"instruction": text} for text in ("as in the task file", "Be short.")]
    trials = [
        {
            "what": what,
            "dev_loss": 1.5 - 0.1 * number if trained else None,
            "dev_metric": 0.4 + 0.1 * number,
            "rows": 60,
            "seconds": 30.0,
            "kept": number == 1,
        }
        for number, what in enumerate(named if trained else asked)
    ]
    if name == "lora+rag":
        looked_up = {"dev_loss": None, "dev_metric": None, "rows": 240, "seconds": 1.0}
        trials += [
            {**looked_up, "what": {"passages": count}, "found": found, "kept": count == 3}
            for count, found in ((1, 0.81), (3, 0.95), (5, 0.96))
        ]
    stopped = "budget" if name == "lora" else "no trial was better"
    found = {"seconds": 60.0, "trials": trials, "stopped": stopped, "improving": name == "lora"}
    if name != "few-shot":
        return found
    rewritten = {"by": "api.big", "calls": 5, "refused": 2, "compared": 1, "kept": True, "questions": 48}
    return {**found, "reflection": {**rewritten, "seconds": 30.0, "fee": 0.25}}


EXPOSURE = {"canaries": 16, "controls": 255, "mean": 3.456, "highest": 8.0, "possible": 8.0}


def _learning() -> dict[str, Any]:
    points = [{"rows": rows, "score": score} for rows, score in ((180, 0.4), (360, 0.5), (720, 0.58))]
    return {"points": points, "questions": 180, "more": 500, "gain": 0.06, "low": 0.01, "high": 0.11}


def _comparison(best: str, other: str, scores: dict[str, list[float]]) -> dict[str, Any]:
    difference = (sum(scores[best]) - sum(scores[other])) / len(scores[best])
    return {
        "a": best,
        "b": other,
        "difference": difference,
        "low": difference - 0.055,
        "high": difference + 0.055,
        "p": 0.0004,
        "p_holm": 0.0016,
    }


def _manifest(hostile: str) -> dict[str, Any]:
    return {
        "hashes": {"data": "9c1f" * 16, "documents": "71aa" * 16, "base": "e04b" * 16, "task": "3f9a" * 16},
        "versions": {"trimtab": "0.1.0", "torch": "2.8.0", "transformers": "5.1.0"},
        "machine": "2 cores, 8 GB, no accelerator",
        "precision": "bf16",
        "seeds": [17],
        "test_openings": 1,
        "counts": {
            "source": {"handbook 2026": 830, "service desk": 370},
            "licence": {"CC0-1.0": 1200},
            "splits": {"train": 720, "dev": 180, "test": 300},
        },
        "figures": {
            "lora.train_seconds": {"value": 214.0, "provenance": "measured"},
            "lora.train_seconds_planned": {"value": 240, "provenance": "predicted"},
            "machine_hour": {"value": 0.4, "provenance": "yours"},
        },
        "remarks": [
            {"level": "warn", "text": "14 questions of the training rows stand word for word in a document." + hostile},
            {"level": "note", "text": "2 phone numbers and 1 e-mail address were found in training rows."},
        ],
        "refused": 3,
        "overlaps": 0,
        "smallest_difference": 0.062,
    }


def _events(name: str, draw: random.Random) -> list[dict[str, Any]]:
    stages, steps, found = ARMS[name][1], 180, []
    for step in range(1, steps + 1) if stages else ():
        event = {
            "time": "2026-11-24T14:20:00.000+00:00",
            "stage": "train",
            "arm": name,
            "seed": 17,
            "step": step,
            "of": steps,
        }
        event["loss"] = 0.55 + 2.1 * 0.975**step + draw.gauss(0, 0.09)
        if step % 20 == 0:
            event["dev_loss"] = 0.74 + 1.9 * 0.97**step + 0.0006 * step
            event["dev_metric"] = 0.62 * (1 - 0.975**step) + draw.gauss(0, 0.01)
            event["best"] = step <= 120
        found.append(event)
    return found


@pytest.fixture
def make_study() -> Callable[..., Path]:
    return write_study
