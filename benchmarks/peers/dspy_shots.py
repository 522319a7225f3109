"""DSPy's random search over worked examples (`BootstrapFewShotWithRandomSearch`), asked over HTTP; nothing of Trimtab.

    python dspy_shots.py GIVEN.json   # needs dspy (3.4 was used); prints one line of JSON

GIVEN has the address, key and model of an OpenAI-compatible server, the instruction, the rows of train and dev, and the
price in questions. Its own chat format asks a small model for headings that it does not write, so prompts are plain
turns here: instruction, worked examples, question.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # otherwise it is fetched

import dspy  # type: ignore[import-not-found]
from dspy.teleprompt import BootstrapFewShotWithRandomSearch  # type: ignore[import-not-found]

SHOTS = 4
OWN_PROGRAMS = 3  # that it tries besides the random ones: no examples, labelled ones, and bootstrapped ones


class PlainTurns(dspy.Adapter):  # type: ignore[misc]
    """Prompts as plain turns. `asked`: the number of them."""

    asked = 0

    def format(self, signature: Any, demos: Sequence[Mapping[str, str]], inputs: Mapping[str, str]) -> list[Any]:
        """Return the turns of a prompt."""
        self.asked += 1
        turns = [{"role": "system", "content": signature.instructions}]
        for demo in demos:
            turns += [{"role": "user", "content": demo["input"]}, {"role": "assistant", "content": demo["answer"]}]
        return [*turns, {"role": "user", "content": inputs["input"]}]

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """Return the answer: all that the model wrote."""
        del signature  # there is one field
        return {"answer": completion.strip()}


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    adapter = PlainTurns()
    lm = dspy.LM(
        f"openai/{given['model']}",
        api_base=given["url"],
        api_key=given["key"],
        cache=False,
        temperature=0.0,
        max_tokens=64,
    )
    dspy.configure(lm=lm, adapter=adapter)
    train, dev = (
        [dspy.Example(**row).with_inputs("input") for row in given["rows"][part]] for part in ("train", "dev")
    )
    program = dspy.Predict(dspy.Signature("input -> answer", given["instruction"]))
    search = BootstrapFewShotWithRandomSearch(
        metric=lambda row, answer, _=None: row.answer.casefold() == answer.answer.casefold(),
        max_bootstrapped_demos=SHOTS // 2,
        max_labeled_demos=SHOTS,
        num_candidate_programs=max(1, int(given["price"] // len(dev)) - OWN_PROGRAMS),
        num_threads=1,
    )
    sys.stdout, out = sys.stderr, sys.stdout  # it prints as it goes
    found = search.compile(program, trainset=train, valset=dev)
    shots = [{"input": demo["input"], "answer": demo["answer"]} for demo in found.demos]
    scores = [one["score"] for one in found.candidate_programs]
    print(
        json.dumps({"shots": shots, "questions": adapter.asked, "dev": scores, "version": dspy.__version__}), file=out
    )


if __name__ == "__main__":
    main()
