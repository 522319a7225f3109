"""A conversation turn by turn: how long until the first token where what was said before is kept, and where all is
read again.

Run: python benchmarks/turns.py  →  benchmarks/results/turns.json (processors that are there stay), in about a
minute; alone on the machine. One process, A B B A: eight problems of GSM8K as the turns of one conversation with
SmolLM2-135M in bf16, laid out as a server has it, 60 tokens said to each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

from best_weights import SHARED
from processor import kind, machine

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.model.catalog import resolve
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import Base, load_base

RESULT = Path(__file__).resolve().parent / "results" / "turns.json"
TURNS, NEW = 8, 60
SIDES = {"kept": "somebody", "read again": ""}  # by who asks: what nobody asked is kept for nobody
ORDER = ("kept", "read again", "read again", "kept")


def conversation(base: Base, questions: list[str], cache_salt: str) -> list[tuple[int, int, float]]:
    """Return, for each turn, the tokens of its prompt, those that were not read, and the milliseconds to its first
    token."""
    encoder, engine, turns, found = ChatEncoder(base.tokenizer), Engine(base, frozenset()), list[Message](), []
    for question in questions:
        turns.append(Message(role="user", content=question))
        ids, first, done = encoder.prompt(turns), 0.0, None
        began = time.perf_counter()
        engine.submit(Request(id="turn", ids=ids, max_new=NEW, cache_salt=cache_salt))
        while engine.in_flight:
            for event in engine.step():
                first = first or time.perf_counter() - began
                done = event if isinstance(event, Completion) else done
        assert done is not None
        turns.append(Message(role="assistant", content=encoder.decode(done.ids).strip()))
        found.append((len(ids), done.cached_tokens, 1000 * first))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SHARED, help="where the public files lie")
    given = parser.parse_args()
    lines = (given.source / "gsm8k.train-1500.jsonl").read_text(encoding="utf-8").splitlines()[:TURNS]
    questions = [json.loads(line)["question"] for line in lines]
    base = accelerate(load_base(resolve("smollm2-135m-q4"), "bf16"))
    with merged_and_packed(base):
        conversation(base, questions[:2], "")  # the first, cold one is not counted
        runs = [(side, conversation(base, questions, SIDES[side])) for side in ORDER]
    turns = []
    for number in range(TURNS):
        turn: dict[str, float] = {"tokens": runs[0][1][number][0], "kept tokens": runs[0][1][number][1]}
        for side in SIDES:
            turn[f"ms, {side}"] = round(median(told[number][2] for name, told in runs if name == side))
        turns.append(turn)
        print(turn)
    former = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    write_json(RESULT, {**former, kind(): {"turns": turns, "machine": machine(), "versions": versions()}})


if __name__ == "__main__":
    main()
