"""100 few-shot prompts (fixed shots of about 600 tokens): our engine against `transformers.generate`, in one process.

Run: python benchmarks/generate_vs_transformers.py  →  benchmarks/results/generate_vs_transformers.json
Order A B B A … within the process; medians; new tokens are counted to the stop token, on both sides.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from trimtab.answering.engine import Engine, Request
from trimtab.base.files import write_json
from trimtab.model.catalog import resolve
from trimtab.model.load import Base, load_base

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "generate_vs_transformers.json"
MODEL, SHOT_TOKENS, NEW_TOKENS, BATCH = "smollm2-135m-q4", 600, 64, 32
SYSTEM = "Solve the problem step by step. End with #### and the number."

Answers = list[tuple[int, ...]]


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def few_shot_prompts(tokenizer: Any, count: int) -> tuple[list[tuple[int, ...]], int]:
    """Prompts as ids: the shots as turns, as many as fit into SHOT_TOKENS; and the tokens that all share."""

    def encode(turns: list[dict[str, str]], ask: bool) -> list[int]:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    turns = [{"role": "system", "content": SYSTEM}]
    for row in rows("gsm8k.train-1500.jsonl"):
        shot = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        if len(encode(turns + shot, False)) <= SHOT_TOKENS:
            turns += shot
    questions = [row["question"] for row in rows("gsm8k.test-300.jsonl")[:count]]
    prompts = [tuple(encode([*turns, {"role": "user", "content": question}], True)) for question in questions]
    return prompts, len(encode(turns, False))


def ours(base: Base, stop: int, prompts: list[tuple[int, ...]]) -> Answers:
    requests = [Request(id=str(place), ids=ids, max_new=NEW_TOKENS) for place, ids in enumerate(prompts)]
    return [completion.ids for completion in Engine(base, frozenset({stop})).generate(requests)]


def theirs(model: Any, stop: int, prompts: list[tuple[int, ...]]) -> Answers:
    answers: Answers = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([[stop] * (longest - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=stop,
                eos_token_id=stop,
            )
        for row in out[:, longest:].tolist():
            answers.append(tuple(row[: row.index(stop)] if stop in row else row))
    return answers


def timed(run: Callable[[], Answers]) -> tuple[float, Answers]:
    started = time.perf_counter()
    answers = run()
    return time.perf_counter() - started, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2, help="of A B B A")
    arguments = parser.parse_args()
    folder = resolve(MODEL)
    base = load_base(folder, "bf16")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    stop = int(base.tokenizer.eos_token_id)
    prompts, shared = few_shot_prompts(base.tokenizer, arguments.prompts)
    arms = {"trimtab": lambda: ours(base, stop, prompts), "transformers": lambda: theirs(model, stop, prompts)}
    for arm in (lambda: ours(base, stop, prompts[:2]), lambda: theirs(model, stop, prompts[:2])):
        arm()  # the first call of each is not timed
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    answers: dict[str, Answers] = {}
    for name in ["trimtab", "transformers", "transformers", "trimtab"] * arguments.rounds:
        spent, answers[name] = timed(arms[name])
        seconds[name].append(spent)
        print(f"{name}: {spent:.1f} s, {sum(map(len, answers[name])) / spent:.0f} new tokens/s", flush=True)
    rates = {name: sum(map(len, answers[name])) / statistics.median(spent) for name, spent in seconds.items()}
    same = sum(left == right for left, right in zip(answers["trimtab"], answers["transformers"], strict=True))
    result = {
        "what": f"{len(prompts)} few-shot prompts, {shared} shared tokens, up to {NEW_TOKENS} new tokens, greedy, bf16",
        "model": MODEL,
        "peer": f"transformers.generate {transformers.__version__}, batch {BATCH}, left padding, sdpa",
        "prompt_tokens_mean": statistics.mean(map(len, prompts)),
        "seconds": seconds,
        "new_tokens": {name: sum(map(len, given)) for name, given in answers.items()},
        "new_tokens_per_second": rates,
        "ratio": rates["trimtab"] / rates["transformers"],
        "same_answers": same / len(prompts),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
