"""Our engine against transformers on one machine, row by row of a table, each side in a process of its own: A B B A,
medians.

Run: python benchmarks/answering.py  →  benchmarks/results/answering.json (rows and processors that are there and not
asked for are kept) `--rows few-shot,mixed` takes some of the rows: few-shot (200 prompts behind 600 tokens that they
share), mixed (200 short prompts, 8 to 256 new tokens each, which both sides know beforehand and sort by),
mixed-batch (64 of them beside transformers' continuous batching), mixed-unknown (200, but where an answer ends is
seen only when it is there, as in use), stream (one prompt at a time), stream-8bit (the same with our weights in 8
bits), labels (one of the 77 intents of Banking77). Loading is not timed, and each side answers a little before the
clock starts. New tokens are counted as asked for, on both sides.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from shared import SHARED, kind, machine
from train_vs_trl import KEEPS_MEMORY
from transformers import AutoModelForCausalLM, AutoTokenizer, ContinuousBatchingConfig, GenerationConfig

from trimtab.base.files import write_json
from trimtab.base.machine import versions
from trimtab.inference.engine import Engine, Request
from trimtab.inference.label_scoring import LabelRequest, label_probabilities
from trimtab.model.catalog import resolve
from trimtab.model.fast.int8_weights import int8_forwards
from trimtab.model.fast.packed_weights import packed
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "answering.json"
MODEL, SHOT_TOKENS, NEW_TOKENS = "smollm2-135m-q4", 600, 64
SYSTEM = "Solve the problem step by step. End with #### and the number."
BATCH, STREAM_TOKENS, LENGTHS = 32, 128, (8, 256)
CACHE_TOKENS, CACHE_BLOCK = 65_536, 256  # of transformers' continuous batching
LOOKUP, LOOKED_UP = "prompt lookup", 7  # the peer's own guesses, and how many it makes: the best of 3, 5, 7 and 10 here
LABEL_BATCH = 77  # all labels of a question
EIGHT = "stream-8bit"
UNKNOWN = "mixed-unknown"
ALONE = ("stream", EIGHT)  # rows of one prompt at a time
HELD = ExitStack()  # what holds for as long as the process lives
Prompt = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The input of one row of the table: prompts, new tokens of each (0: a label), and the labels' tokens."""

    prompts: list[Prompt]
    lengths: list[int]
    labels: list[Prompt]
    known: bool = True  # whether a side may look at the lengths before an answer has ended


@dataclass(frozen=True, kw_only=True)
class Row:
    what: str
    goals: dict[str, float | None]  # by the peer's name, how many times as fast; None where nothing was aimed at
    count: int
    unit: str = "new tokens"


ROWS = {
    "few-shot": Row(
        what=f"few-shot prompts, {SHOT_TOKENS} tokens shared, {NEW_TOKENS} new tokens",
        goals={"generate": 5.0},
        count=200,
    ),
    "mixed": Row(what="short prompts, 8 to 256 new tokens each", goals={"generate": 3.0}, count=200),
    "mixed-batch": Row(what="short prompts, 8 to 256 new tokens each", goals={"generate_batch": 3.0}, count=64),
    UNKNOWN: Row(
        what="short prompts, 8 to 256 new tokens each, which nobody knows beforehand",
        goals={"generate": 3.0},
        count=200,
    ),
    "stream": Row(
        what=f"one prompt at a time, {STREAM_TOKENS} new tokens", goals={"generate": 2.5, LOOKUP: None}, count=4
    ),
    EIGHT: Row(
        what=f"one prompt at a time, {STREAM_TOKENS} new tokens, our weights in 8 bits",
        goals={"generate": 2.5, LOOKUP: None},
        count=4,
    ),
    "labels": Row(what="one of 77 labels", goals={"scored": 10.0}, count=20, unit="questions"),
}


def asked(name: str, tokenizer: Any, count: int, data: Path) -> Asked:
    """Return the input of a row; both sides get the same."""
    if name == "few-shot":
        prompts = few_shot_prompts(tokenizer, count, data)
        return Asked(prompts=prompts, lengths=[NEW_TOKENS] * len(prompts), labels=[])
    if name == "labels":
        questions = list(csv.DictReader((data / "banking77.test.csv").open(encoding="utf-8")))
        labels = sorted({row["category"] for row in questions})
        picked = random.Random(0).sample([row["text"] for row in questions], count)
        ends = [(*tokenizer(label, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id) for label in labels]
        return Asked(prompts=chats(tokenizer, picked), lengths=[0] * count, labels=ends)
    questions = [row["question"] for row in rows(data / "gsm8k.train-1500.jsonl")[:count]]
    draw = random.Random(0)
    lengths = [STREAM_TOKENS if name in ALONE else draw.randint(*LENGTHS) for _ in questions]
    return Asked(prompts=chats(tokenizer, questions), lengths=lengths, labels=[], known=name != UNKNOWN)


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def few_shot_prompts(tokenizer: Any, count: int, data: Path) -> list[Prompt]:
    """Prompts as ids: the shots as turns, as many as fit into SHOT_TOKENS."""

    def encode(turns: list[dict[str, str]], ask: bool) -> list[int]:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    turns = [{"role": "system", "content": SYSTEM}]
    for row in rows(data / "gsm8k.train-1500.jsonl"):
        shot = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        if len(encode(turns + shot, False)) <= SHOT_TOKENS:
            turns += shot
    questions = [row["question"] for row in rows(data / "gsm8k.test-300.jsonl")[:count]]
    return [tuple(encode([*turns, {"role": "user", "content": question}], True)) for question in questions]


def chats(tokenizer: Any, texts: Sequence[str]) -> list[Prompt]:
    found = []
    for text in texts:
        turns = [{"role": "user", "content": text}]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        found.append(tuple(tokenizer(whole, add_special_tokens=False)["input_ids"]))
    return found


def ours(name: str) -> tuple[Any, Callable[[Asked], list[Any]]]:
    base = accelerate(load_base(resolve(MODEL), "bf16"))
    HELD.enter_context(int8_forwards(base) if name == EIGHT else packed(base))

    def answer(given: Asked) -> list[Any]:
        if given.labels:
            requests = [LabelRequest(id=str(place), ids=ids) for place, ids in enumerate(given.prompts)]
            return [choice.best for choice in label_probabilities(base, requests, given.labels)]
        asked_for = [
            Request(id=str(place), ids=ids, max_new=given.lengths[place] if given.known else LENGTHS[1])
            for place, ids in enumerate(given.prompts)
        ]
        engine = Engine(base, frozenset())  # no end token, so that both sides say as much
        if name in ALONE:
            return [len(engine.generate([request])[0].ids) for request in asked_for]
        on_token = None if given.known else ends_of(given.lengths)
        return [len(completion.ids) for completion in engine.generate(asked_for, on_token=on_token)]

    return base.tokenizer, answer


def ends_of(lengths: Sequence[int]) -> Callable[[str, int], bool]:
    """Ends each answer at its length, as its end token would."""
    said = [0] * len(lengths)

    def on_token(request_id: str, token: int) -> bool:  # noqa: ARG001
        said[int(request_id)] += 1
        return said[int(request_id)] == lengths[int(request_id)]

    return on_token


def looked_up(name: str) -> tuple[Any, Callable[[Asked], list[Any]]]:
    """`transformers.generate` with prompt lookup, which it has for one prompt at a time."""
    return generate(name, prompt_lookup_num_tokens=LOOKED_UP)


def generate(name: str, **more: Any) -> tuple[Any, Callable[[Asked], list[Any]]]:
    """`transformers.generate`: left padding, in batches of similar length (answer, where it is known, and prompt),
    each as long as its longest."""
    tokenizer, model = plain("sdpa")
    batch = 1 if name in ALONE else BATCH

    def answer(given: Asked) -> list[Any]:
        said = [0] * len(given.prompts)
        sizes = [
            (length if given.known else 0, len(ids)) for length, ids in zip(given.lengths, given.prompts, strict=True)
        ]
        order = sorted(range(len(said)), key=sizes.__getitem__)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            ids, mask = padded([given.prompts[place] for place in places], left=True)
            most = max(given.lengths[place] for place in places)
            with torch.inference_mode():
                out = model.generate(
                    ids, attention_mask=mask, max_new_tokens=most, do_sample=False, pad_token_id=0, **more
                )
            for place in places:
                said[place] = min(out.shape[1] - ids.shape[1], given.lengths[place])
        return said

    return tokenizer, answer


def generate_batch(name: str) -> tuple[Any, Callable[[Asked], list[Any]]]:  # noqa: ARG001 - as the others
    """transformers' continuous batching, each request with its own number of new tokens."""
    tokenizer, model = plain("sdpa")
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=LENGTHS[1])
    # By itself it takes most of the memory of the machine; this is more than all requests of the row can fill at once.
    room = ContinuousBatchingConfig(
        num_blocks=CACHE_TOKENS // CACHE_BLOCK, page_size=CACHE_BLOCK, max_batch_tokens=2048
    )

    def answer(given: Asked) -> list[Any]:
        said: dict[str, int] = {}
        with model.continuous_batching_context_manager(
            generation_config=settings, continuous_batching_config=room, block=True
        ) as manager:
            for place, ids in enumerate(given.prompts):
                manager.add_request(
                    list(ids), request_id=str(place), max_new_tokens=given.lengths[place], eos_token_id=-1
                )
            while len(said) < len(given.prompts):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    said[result.request_id] = len(result.generated_tokens)
                elif result is None and not manager.is_running():
                    raise RuntimeError("continuous batching has stopped")
        return [said[str(place)] for place in range(len(given.prompts))]

    return tokenizer, answer


def scored(name: str) -> tuple[Any, Callable[[Asked], list[Any]]]:  # noqa: ARG001
    """Score every label after the question, all labels of a question in a batch; the head on the labels' positions
    alone."""
    tokenizer, model = plain("sdpa")

    def answer(given: Asked) -> list[Any]:
        best = []
        for prompt in given.prompts:
            sums: list[float] = []
            for start in range(0, len(given.labels), LABEL_BATCH):
                labels = given.labels[start : start + LABEL_BATCH]
                ids, mask = padded([prompt + label for label in labels], left=False)
                with torch.inference_mode():
                    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                    for row, label in enumerate(labels):
                        logits = model.lm_head(hidden[row, len(prompt) - 1 : len(prompt) - 1 + len(label)]).float()
                        logs = logits.log_softmax(-1)[torch.arange(len(label)), torch.tensor(label)]
                        sums.append(float(logs.sum()))
            best.append(max(range(len(sums)), key=sums.__getitem__))
        return best

    return tokenizer, answer


SIDES = {"trimtab": ours, "generate": generate, LOOKUP: looked_up, "generate_batch": generate_batch, "scored": scored}


def plain(attention: str) -> tuple[Any, Any]:
    folder = resolve(MODEL)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=attention).eval()
    model.generation_config.eos_token_id = None
    return AutoTokenizer.from_pretrained(folder), model


def padded(prompts: Sequence[Prompt], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, prompts))
    ids, mask = [], []
    for prompt in prompts:
        fill = [0] * (longest - len(prompt))
        ids.append([*fill, *prompt] if left else [*prompt, *fill])
        mask.append([0] * len(fill) + [1] * len(prompt) if left else [1] * len(prompt) + [0] * len(fill))
    return torch.tensor(ids), torch.tensor(mask)


def side(name: str, row: str, count: int, data: Path) -> None:
    """Run one side of a row in this process; the figures are the last line of its output."""
    tokenizer, answer = SIDES[name](row)
    given = asked(row, tokenizer, count, data)
    answer(replace(given, prompts=given.prompts[:2], lengths=[min(8, n) for n in given.lengths[:2]]))
    started = time.perf_counter()
    found = answer(given)
    seconds = time.perf_counter() - started
    done = len(found) if given.labels else sum(found)
    print(json.dumps({"seconds": seconds, "done": done, "found": found if given.labels else []}))


def run(name: str, row: str, count: int, data: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", name, "--rows", row, "--count", str(count)]
    command += ["--data", str(data)]
    kept = {**os.environ, **KEEPS_MEMORY}  # on both sides: a peer's best setting too
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=kept)
    told: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    print(f"{row}, {name}: {told['seconds']:.1f} s, {told['done'] / told['seconds']:.1f} a second", flush=True)
    return told


def compared(row: str, count: int, rounds: int, data: Path) -> dict[str, Any]:
    """Measure ours and each peer in the order A B B A."""
    result: dict[str, Any] = {
        "what": f"{count} × {ROWS[row].what}",
        "freed memory": "kept",
        "unit": f"{ROWS[row].unit} a second",
        "peers": {},
    }
    for peer, goal in ROWS[row].goals.items():
        runs = [(name, run(name, row, count, data)) for name in ["trimtab", peer, peer, "trimtab"] * rounds]
        by_side = {name: [told for one, told in runs if one == name] for name in ("trimtab", peer)}
        rates = {
            name: statistics.median(told["done"] / told["seconds"] for told in told_by)
            for name, told_by in by_side.items()
        }
        pairs = zip(by_side["trimtab"][0]["found"], by_side[peer][0]["found"], strict=True)
        same = [left == right for left, right in pairs]
        result["peers"][peer] = {
            "goal": goal,
            "times_as_fast": round(rates["trimtab"] / rates[peer], 2),
            "rates": {name: round(rate, 2) for name, rate in rates.items()},
            "seconds": {name: [round(told["seconds"], 2) for told in told_by] for name, told_by in by_side.items()},
            **({"same_label": sum(same) / len(same)} if same else {}),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between")
    parser.add_argument("--count", type=int, help="of prompts, in place of each row's own number")
    parser.add_argument("--rounds", type=int, default=1, help="of A B B A")
    parser.add_argument("--data", type=Path, default=SHARED, help="folder of gsm8k.*.jsonl and banking77.test.csv")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.rows.split(",")
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if arguments.side:
        side(arguments.side, names[0], arguments.count, arguments.data)
        return
    result = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {"on": {}}
    for name in names:
        found = compared(name, arguments.count or ROWS[name].count, arguments.rounds, arguments.data)
        rows = result["on"].setdefault(kind(), {})
        rows[name] = {**found, "machine": machine(), "versions": versions()}
        result["model"], result["peer"] = (
            MODEL,
            f"transformers {transformers.__version__}, bf16, batch {BATCH}, sdpa, freed memory kept",
        )
        write_json(arguments.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
