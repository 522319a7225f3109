"""Compares invented answers with and without `quote`, which holds answers to the passages shown: same weights and
prompts.

python benchmarks/quotes.py TASK ARM …      # → results/quotes.json: an entry for each arm; a trained one as it was
made last

Of answers that do not abstain: `elsewhere` stand word for word in none of their passages (case, blanks and the full
stop at the end aside); `invented` give a number, date, time or name that neither the question nor any of the
passages has.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from trimtab.arms.answerers import ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.session import BATCH_ITEMS, Session, open_session
from trimtab.arms.store import find_saved, require_weights
from trimtab.arms.workspace import FOLDER, open_workspace
from trimtab.base.files import read_json, write_json
from trimtab.base.machine import describe_machine, versions
from trimtab.base.records import Example, Generation, Prompt
from trimtab.base.task import load_task, parse_arm
from trimtab.measurement.contains import facts_stand_in
from trimtab.measurement.evaluate import score_text
from trimtab.measurement.metrics import has_abstained

RESULT = Path(__file__).resolve().parent / "results" / "quotes.json"
SHOWN = 12  # answers of each side that are kept to be read


def plain(text: str) -> str:
    """Without case, with single blanks, and without what ends a sentence."""
    return re.sub(r"\s+", " ", text).strip().rstrip(".!").casefold()


def told(session: Session, asked: Sequence[tuple[Example, Prompt, Generation]]) -> dict[str, Any]:
    """Shares of the questions of a task whose metric says right or wrong."""
    task, kinds = session.task, []
    for example, prompt, given in asked:
        abstained = has_abstained(given.text, task.task.unknown)
        texts = [hit.passage.text for hit in prompt.hits]
        stands = abstained or any(plain(given.text) in plain(text) for text in texts)
        known = abstained or any(facts_stand_in(text, given.text, example.input) for text in texts)
        kinds.append((bool(score_text(example, given.text, task)), abstained, not stands, not known))
    right, abstained, elsewhere, invented = (fmean(column) for column in zip(*kinds, strict=True))
    return {
        "questions": len(kinds),
        "right": right,
        "abstained": abstained,
        "wrong": fmean(not (fits or silent) for fits, silent, *_ in kinds),
        "elsewhere": elsewhere,
        "invented": invented,
        "words": fmean(len(given.text.split()) for *_, given in asked),
        "seconds": fmean(given.seconds for *_, given in asked),
        "shown": [[row.input, list(row.references), given.text] for row, _, given in asked[:SHOWN]],
    }


def measured(session: Session, name: str) -> dict[str, Any]:
    """An arm's answers to the test questions, free and as quotes."""
    task = session.task
    arm = parse_arm(name, task)
    saved = require_weights(find_saved(task, arm), arm, task)
    test = session.workspace.splits["test"]
    found: dict[str, Any] = {}
    for side, quote in (("free", False), ("quote", True)):
        context = replace(context_for(arm, saved.chosen if saved else None), quote=quote)
        with ready_arm(session, arm, context, saved.folder if saved else task.folder / FOLDER) as able:
            prompts = able.builder.prompts(test)
            batches = [prompts[start : start + BATCH_ITEMS] for start in range(0, len(prompts), BATCH_ITEMS)]
            given = [one for batch in batches for one in able.answer_batch(batch)]
        found[side] = {**told(session, list(zip(test, prompts, given, strict=True))), "context": context.chosen()}
    return found


def main() -> None:
    """Ask and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("arms", nargs="+")
    asked = parser.parse_args()
    session = open_session(open_workspace(load_task(asked.task)))
    arms = read_json(RESULT)["arms"] if RESULT.is_file() else {}
    for name in asked.arms:
        arms[f"{session.task.task.name} {name}"] = one = measured(session, name)
        for side in ("free", "quote"):
            print(
                name,
                side,
                {key: value for key, value in one[side].items() if key not in ("shown", "context")},
                flush=True,
            )
        write_json(RESULT, {"arms": arms, "machine": describe_machine(), "versions": versions()})


if __name__ == "__main__":
    main()
