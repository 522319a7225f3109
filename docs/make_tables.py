"""Writes the tables of README.md and of the documentation from benchmarks/results; `--check` fails where one is
stale.

A table stands between `<!-- NAME: written by docs/make_tables.py -->` and `<!-- end NAME -->`. A study's figures are
its `study.json`, committed as benchmarks/results/study_NAME.json. What was not measured says so.
"""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

from trimtab.base.codec import from_plain
from trimtab.base.results import StudyResult
from trimtab.cli.output import Output
from trimtab.publishing.agents import assistant_agents

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STUDIES = {
    "study_handbook": "`make demo`: questions about an invented company's handbook",
    "study_banking77": "Banking77: intents of bank customers' messages",
    "study_xquad": "XQuAD: questions on encyclopaedia articles, split by article",
    "study_endoflife": "Release facts of 150 products, split by product; a tenth of the documents missing",
    "study_sums": "Made sums, what a reward adds to examples (usual settings)",
}
PREDICTED = (*STUDIES, "study_spam", "study_style")  # whose predicted time and memory stand beside the measured ones
# What each simulated figure says, and what it should be: shares of studies.
INTERVALS = {
    "score_covered": ("95% intervals of a score hold the true one", "95%, no row below 92%"),
    "difference_covered": ("95% intervals of a difference hold the true one", "95%, no row below 92%"),
}
ERRORS = {
    "target_claimed": ("an arm at the target is said to be above it", "at most 5%"),
    "different": ("two equal arms are said to differ", "at most 5%"),
    "not_worse": ("an arm behind by the margin is said not to be", "at most 5%"),
}
CLAIMS = {
    "false reaches": ("a study says of any arm that it reaches a target that it does not reach", "at most 5%"),
    "false better": ("a study says of any arm that it is better than one that is as good", "at most 5%"),
    "shown worse": ("a study shows an arm that is behind the best by the margin", "at most 5%"),
    "shown dearer": ("a study shows an arm although a lighter one is within the margin", "at most 5%"),
    "shown too slow": ("a study shows an arm whose 95th percentile is at the latency limit", "at most 5%"),
    "false trivial": (
        "a study says that no model is needed where an answer without one is at the target",
        "at most 5%",
    ),
    "picked missed": ("the highest score's corrected interval does not hold the true one", "at most 5%"),
}
FOLLOWED = {
    "redrawn": (
        "a study of as many questions as a verdict asks for, drawn from its own, shows an arm",
        "80%, no row below 75%",
    ),
    "added": ("the same, where only the further questions are drawn", "at least 80%"),
    "simulated": ("the same, of new questions to arms with the measured scores", "80%, no row below 75%"),
}


def load(name: str) -> Any:
    """A committed result, None where there is none."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def studies() -> str:
    """One table for each study: its arms, and the verdict below."""
    parts = []
    for name, title in STUDIES.items():
        study = load(name)
        parts.append(f"**{title}**\n\n" + (_study(study) if study else f"Not measured yet (`{name}.json`)."))
    return "\n\n".join(parts)


def _study(study: dict[str, Any]) -> str:
    metric = study["metric"].replace("_", " ")
    columns = ["arm", f"{metric} [95% interval]", "questions", "training", "one answer, median"]
    calibrated = any("ece" in arm.get("extras", {}) for arm in study["arms"])
    columns += ["calibration error: as it was → calibrated"] * calibrated
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for arm in study["arms"]:
        if arm["status"] != "done":
            empty = " |" * (len(columns) - 2)
            lines.append(f"| `{arm['arm']}` | {arm['status'].replace('_', ' ')}: {arm['why']} |{empty}")
            continue
        score = f"{arm['score']:.3f} [{arm['low']:.3f}, {arm['high']:.3f}]"
        trained = _seconds(arm["train_seconds"]) if arm["train_seconds"] else "none"
        cells = [f"`{arm['arm']}`", score, str(arm["n"]), trained, f"{arm['latency_p50_ms']:.0f} ms"]
        if calibrated:
            cells.append(f"{arm['extras'].get('ece_before', arm['extras']['ece']):.3f} → {arm['extras']['ece']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    verdict = study["verdict"]
    shown = "*Shown.* " if verdict["status"] == "shown" else ""  # the other sentences say it themselves
    return "\n".join(lines) + f"\n\n{shown}{verdict['sentence']}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def predicted() -> str:
    """Predicted and measured seconds and memory of every arm, over the studies that kept their plan."""
    lines = ["| study | arm | seconds: predicted, measured | error | memory: predicted, measured | error |"]
    lines.append("| --- " * 6 + "|")
    ended: list[str] = []
    errors: list[tuple[float, float]] = []
    for name in PREDICTED:
        study = load(name) or {}
        figures = study.get("foretold", {})
        for arm in (arm["arm"] for arm in study.get("arms", []) if f"{arm['arm']}.seconds" in figures):
            time, memory = figures[f"{arm}.seconds"], figures.get(f"{arm}.memory_mb")
            if memory is None:  # an arm whose memory was not predicted when it was measured
                lines.append(f"| {name.removeprefix('study_')} | `{arm}` | {_both(time, 's')} | not predicted | |")
                continue
            if "whole" in time:
                ended.append(f"`{arm}` over {name.removeprefix('study_')} ({time['whole']:.0f} s for all)")
            errors.append((abs(time["error"]), abs(memory["error"])))
            lines.append(f"| {name.removeprefix('study_')} | `{arm}` | {_both(time, 's')} | {_both(memory, 'MB')} |")
    if not errors:
        return "Not measured yet."
    held = [sum(pair[which] <= aim for pair in errors) for which, aim in enumerate((0.15, 0.1))]
    said = f"Aims: time within 15% ({held[0]} of {len(errors)}), memory within 10% ({held[1]} of {len(errors)})."
    if ended:
        said += (
            " Where the dev score ended the training early, the prediction is for the steps that were made: "
            f"{', '.join(ended)}."
        )
    return "\n".join([*lines, "", said])


def _both(figure: dict[str, float], unit: str) -> str:
    value, error = figure["value"], figure["error"]
    return f"{value:,.0f}, {value / (1 + error):,.0f} {unit} | {error:+.0%}"


WORKS = ("sft", "full", "last", "head", "dpo", "grpo")
ROWS = ("stream", "stream-8bit", "labels", "few-shot", "mixed", "mixed-unknown")


def speed() -> str:
    """Training and answering beside their peers on the same machine, each kind of processor for itself."""
    lines = [
        "| work | processor | Trimtab | peer | ratio | aim | memory |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    train, answer = load("train_vs_trl") or {"on": {}}, load("answering") or {"on": {}}
    peers: dict[str, None] = {}
    for where, work in _beside(train["on"], WORKS):
        rates, memory = work["tokens_per_second"], work["peak_memory_mb"]
        told = [f"{rates[side]:,.0f} tokens/s" for side in ("trimtab", "trl")]
        shares = [f"{memory['trimtab'] / memory[side]:.2f}" for side in ("trl", "stock") if side in memory]
        ratios = f"{work['ratio']:.2f} | {work['goal']:g} | {' / '.join(shares)}"
        lines.append(f"| training: {work['what']} | {where} | {told[0]} | {told[1]} | {ratios} |")
        peers[work["peer"]] = None
    for where, row in _beside(answer["on"], ROWS):
        for name, peer in row["peers"].items():
            told = [f"{peer['rates'][side]:,.1f}" for side in ("trimtab", name)]
            goal = "–" if peer["goal"] is None else f"{peer['goal']:g}"
            ratios = f"{peer['times_as_fast']:.2f} | {goal} | "
            ours, theirs = f"{told[0]} {row['unit']}", f"{name.replace('_', ' ')}: {told[1]}"
            lines.append(f"| answering: {row['what']} | {where} | {ours} | {theirs} | {ratios}|")
    streams = load("streams")
    if streams:
        for name, side in streams["sides"].items():
            if name != "trimtab":
                ours = streams["sides"]["trimtab"]
                told = f"{ours['tokens_per_second']:,.0f} tokens/s | {name}: {side['tokens_per_second']:,.0f} tokens/s"
                ratios = (
                    f"{ours['tokens_per_second'] / side['tokens_per_second']:.2f} | {streams['goal']:g} | "
                    f"{ours['memory_mb'] / side['memory_mb']:.2f}"
                )
                where = streams["machine"]["processor"]
                lines.append(f"| answering: {streams['what']} | {where} | {told} | {ratios} |")
        peers[
            f"streams: llama.cpp, {streams['llama.cpp'][0].removeprefix('version: ')}, its own server, a slot "
            "for each client"
        ] = None
    if answer["on"]:
        peers[f"answering: {answer['peer']}; every label scored in a batch"] = None
    said = [
        "",
        f"All with {answer.get('model', 'the small model')} on 2 cores, A B B A, medians; memory: the process's "
        "highest, ours to the peer's, behind the stroke to that of the peer as it is without a setting. The "
        "peers' settings:",
        *(f"- {peer}" for peer in peers),
    ]
    return "\n".join([*lines, *said, *beside_others(), *under_load(), *rounding()])


def _beside(on: dict[str, dict[str, Any]], names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every work by name, on one kind of processor after the other."""
    return ((where, works[name]) for name in names for where, works in on.items() if name in works)


def beside_others() -> list[str]:
    """How much of its speed training keeps while other programs run."""
    told = []
    result = load("busy_machine") or {}
    for where, found in result.get("training", {}).items():
        quiet, *busy = (run["tokens_per_second"] for run in found["runs"])
        kept = [
            [f"{one[way] / quiet['side by side']:.2f}" for one in busy] for way in ("side by side", "one after another")
        ]
        told.append(
            f"Training beside programs that are always busy (`benchmarks/busy_machine.py`, {where}, two cores): "
            f"LoRA keeps {kept[0][0]} of its speed beside one and {kept[0][1]} beside three, about its share of "
            f"the cores; with all threads on one pass after another it kept {kept[1][0]} and {kept[1][1]}."
        )
    answering = result.get("answering")
    if answering:
        speeds = {(row["beside"], row["what"]): row["tokens_per_second"] for row in answering["rows"]}
        quiet = speeds["nothing", "one stream"]["free cores"]
        kept = {
            beside: [f"{speeds[beside, 'one stream'][way] / quiet:.2f}" for way in ("free cores", "all threads")]
            for beside in ("one", "three")
        }
        told.append(
            f"One stream of answers (`benchmarks/busy_machine.py`, {answering['machine']['processor']}, two cores) "
            f"keeps {kept['one'][0]} and {kept['three'][0]}; on all threads it kept {kept['one'][1]} and "
            f"{kept['three'][1]}."
        )
    return ["", *told] if told else []


def under_load() -> list[str]:
    """What the server holds when five times as much is asked of it as it can answer."""
    found = load("serving_load")
    if not found:
        return []
    over = found["open_5x"]
    return [
        "",
        "The demo's `lora+rag` served over loopback (`benchmarks/serving_load.py`, "
        f"{found['machine']['processor']}): kept busy, it answers {found['closed']['goodput_per_second']:.1f} "
        f"questions a second; asked five times as much, {found['share_of_peak_at_5x']:.0%} of that within "
        f"{found['deadline_seconds']:.0f} s (aim 95%). The rest is refused: half of the refusals within "
        f"{over['refusal_ms']['p50']:.0f} ms, 95% within {over['refusal_ms']['p95']:.0f} ms (aim 50 ms). No "
        f"request ended in an error; memory rose from {found['memory_mb_before'] / 1e3:.1f} to "
        f"{found['memory_mb_after'] / 1e3:.1f} GB.",
        *soak(),
    ]


def soak() -> list[str]:
    """Whether half an hour at what the server can do changes anything."""
    found = load("serving_soak")
    if not found:
        return []
    parts, seen = found["soak"]["parts"], found["soak"]["memory_mb"]
    told = {key: sum(part[key] for part in parts) for key in ("answered", "refused", "left", "errors")}
    minutes = sum(part["seconds"] for part in parts) / 60
    return [
        f"{minutes:.0f} minutes at its best rate (`--soak`, on one core beside other work): {told['answered']:,} "
        f"answers, {told['refused']} refusals, {told['left']} clients that left, {told['errors']} errors; memory "
        f"between {min(seen):,.0f} and {max(seen):,.0f} MB, {found['soak']['growth_mb']:.1f} MB more at the end."
    ]


def rounding() -> list[str]:
    """How many answers the faster arithmetic changes."""
    found = load("bf16_answers")
    if not found:
        return []
    low, full = found["bf16"], found["fp32"]
    return [
        "",
        f"Of {found['questions']} greedy answers of a LoRA arm, bf16 changes {low['merged_from_beside']:.0%} "
        f"when the adapter is merged into the weights and {low['alone_from_batch']:.0%} when a question is asked "
        f"alone instead of in a batch; fp32 {full['merged_from_beside']:.0%} and {full['alone_from_batch']:.0%}.",
    ]


def gguf() -> str:
    """How many answers of a GGUF file are those measured, and those of exact arithmetic, by its type."""
    found = load("gguf_answers")
    if not found:
        return "Not measured yet (`gguf_answers.json`)."
    lines = [
        "| measured in | file | llama.cpp as transformers in fp32 | llama.cpp as measured | transformers as measured |",
        "| --- | --- | --- | --- | --- |",
    ]
    for precision, kinds in found["measured in"].items():
        for kind, (native, same_file, exact) in kinds.items():
            cells = [
                f"{proof['same']} of {proof['questions']} "
                f"[{proof['agreement']['low']:.0%}, {proof['agreement']['high']:.0%}]"
                for proof in (same_file, native, exact)
            ]
            lines.append(f"| {precision} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def simulation() -> str:
    """How far the verdict itself can be trusted: means and worst rows, then every row."""
    found = load("verdict_simulation")
    if not found or not found["summary"]:
        return "Not measured yet (`verdict_simulation.json`)."
    lines = ["| over simulated studies with known truth | aim | mean | worst row |", "| --- | --- | --- | --- |"]
    for key, (words, aim) in {**INTERVALS, **ERRORS, **CLAIMS, **FOLLOWED}.items():
        if key not in found["summary"]:
            continue
        figures = found["summary"][key]
        lines.append(f"| {words} | {aim} | {figures['mean']:.1%} | {figures['worst']:.1%} |")
    cells, verdicts = found["cells"], found["verdicts"]
    return "\n".join(
        [
            *lines,
            "",
            f"## Every row: intervals and tests, {_studies(cells)} simulated test sets each",
            "",
            *_cells(cells),
            "",
            f"## Every row: whole verdicts, {_studies(verdicts)} simulated studies each",
            "",
            *_verdicts(verdicts),
            *(_followed(found["followed"]) if found.get("followed") else []),
        ]
    )


def objectives() -> str:
    """Every objective once from end to end."""
    found = load("objectives")
    if not found:
        return "Not measured yet (`objectives.json`)."
    return f"{found['table']}\n\n{found['what'][0].upper()}{found['what'][1:]}."


def _studies(rows: list[dict[str, Any]]) -> str:
    return " or ".join(f"{count:,}" for count in sorted({row["studies"] for row in rows}))


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    keys = [*INTERVALS, *ERRORS]
    head = (
        "| scores | questions | true score | score held | difference held | wrongly above target | wrongly different "
        "| wrongly not worse |"
    )
    lines = [head, "| --- " * 8 + "|"]
    for row in rows:
        shares = " | ".join(f"{row[key]:.1%}" for key in keys)
        lines.append(f"| {row['scores']} | {row['questions']} | {row['score']:g} | {shares} |")
    return lines


def _verdicts(rows: list[dict[str, Any]]) -> list[str]:
    short = {
        "false reaches": "reaches",
        "false better": "better",
        "shown worse": "worse",
        "shown dearer": "dearer",
        "shown too slow": "too slow",
        "false trivial": "no model needed",
        "picked missed": "corrected interval",
    }
    head = "| arms, light to heavy | true scores | target | scores | questions | shown | shown rightly | wrongly said |"
    lines = [head, "| --- " * 8 + "|"]
    for row in rows:
        truths = row["truths"]
        scores = f"{len(truths)} arms" if len(truths) > 5 else ", ".join(f"{truth:g}" for truth in truths)
        wrong = ", ".join(f"{short[key]} {share:.1%}" for key, share in row["wrong"].items())
        target = "" if row["target"] is None else f"{row['target']:g}"
        lines.append(
            f"| {row['scenario']} | {scores} | {target} | {row['scores']} | {row['questions']} | "
            f"{row['shown']:.1%} | {row['shown rightly']:.1%} | {wrong} |"
        )
    return lines


def _followed(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        f"## Every row: following the number of questions asked for, {_studies(rows)} simulated studies each",
        "",
        "| study that was not shown | true scores | target | scores | questions | times as many, mean | shown: "
        "redrawn | added | simulated |",
        "| --- " * 9 + "|",
    ]
    for row in rows:
        truths, target = ", ".join(f"{truth:g}" for truth in row["truths"]), row["target"]
        shares = " | ".join(f"{row[how]:.1%}" for how in FOLLOWED)
        lines.append(
            f"| {row['followed'].removeprefix('following N: ')} | {truths} | "
            f"{'' if target is None else f'{target:g}'} | {row['scores']} | {row['questions']} | "
            f"{row['times_as_many']:.1f} | {shares} |"
        )
    return lines


# For the README: the question of each study, the arm that its words below speak of (none where nothing was shown), and
# those words.
SETTLED = {
    "study_handbook": (
        "Answer from a company handbook",
        "extract",
        "A sentence copied from the handbook: a tuned model with passages gets 12 fewer of 100 right at three times "
        "the cost.",
    ),
    "study_banking77": (
        "Sort bank messages into 77 intents",
        "linear",
        "No language model needs to be tuned or served.",
    ),
    "study_xquad": (
        "Answer from encyclopaedia articles",
        "lora+rag",
        "Tuning and retrieval together, on articles it never saw (before `extract` was an arm).",
    ),
    "study_sums": ("Solve made-up sums", None, "Not shown: reinforcement learning added nothing to examples."),
}
FASTEST = {  # for the README: works of training and of answering beside one peer each
    "train_vs_trl": (
        ("sft", "LoRA on examples", "TRL"),
        ("dpo", "DPO", "TRL"),
        ("grpo", "GRPO with its answers", "TRL"),
    ),
    "answering": (
        ("few-shot", "200 prompts that share 600 tokens", "generate"),
        ("stream", "One answer at a time", "generate"),
    ),
}


def studies_short() -> str:
    """One row for each study: its arms, the winner and its interval, and what that settled."""
    lines = ["| task | compared | result | what it settled |", "| --- | --- | --- | --- |"]
    for name, (title, winner, words) in SETTLED.items():
        study = load(name)
        if not study or (study["verdict"]["arm"] if study["verdict"]["status"] == "shown" else None) != winner:
            raise SystemExit(f"docs/make_tables.py: the words about {name} do not fit its verdict; write them anew")
        done = [arm for arm in study["arms"] if arm["status"] == "done"]
        best = (
            max(done, key=lambda arm: arm["score"]) if winner is None else next(a for a in done if a["arm"] == winner)
        )
        arms = ", ".join(f"`{arm['arm']}`" for arm in done)
        score = f"`{best['arm']}` {best['score']:.2f} [{best['low']:.2f}, {best['high']:.2f}]"
        lines.append(f"| {title} | {arms} | {score} | {words} |")
    return "\n".join(lines)


def speed_short() -> str:
    """One row for each work: how many times as fast as its peer, on each kind of processor."""
    processors = list(load("train_vs_trl")["on"])
    lines = [f"| work | beside | {' | '.join(processors)} |", "| --- | --- " + "| --- " * len(processors) + "|"]
    for result, works in FASTEST.items():
        on = load(result)["on"]
        for key, title, peer in works:
            ratios = []
            for processor in processors:
                work = on[processor].get(key)
                ratio = work and (work["ratio"] if "ratio" in work else work["peers"][peer]["times_as_fast"])
                ratios.append(f"{ratio:.1f} ×" if ratio else "not measured")
            name = "TRL" if peer == "TRL" else f"transformers `{peer}`"
            lines.append(f"| {title} | {name} | {' | '.join(ratios)} |")
    return "\n".join(lines)


# Why a package that takes much room is there.
WHY = {
    "torch": "tensors and automatic differentiation; every model runs on it",
    "lancedb": "the index of documents, by vectors and by words",
    "pyarrow": "Parquet and CSV; the tables of a study; LanceDB needs it",
    "scipy": "exact tests and bootstrap intervals; scikit-learn needs it",
    "transformers": "models, tokenizers, chat templates",
    "sympy": "torch needs it",
    "numpy": "arrays; torch, scipy and pyarrow share them",
    "scikit-learn": "the `linear` arm; sentence-transformers needs it",
    "phonenumbers": "numbering plans by country: `trimtab check` finds phone numbers in rows",
    "babel": "trafilatura, which reads HTML, needs it",
    "triton": "xgrammar needs it on Linux; CUDA builds of torch bring it anyway",
    "SQLAlchemy": "the stores of users' feedback and of versions",
    "pandas": "results as DataFrames",
    "ray": "arms on several machines",
    "playwright": "the driver of a browser, with Node inside",
    "xllamacpp": "llama.cpp itself",
    "botocore": "s3fs needs it",
    "bitsandbytes": "weights in 4 bits",
    "pillow": "python-pptx, which reads PowerPoint, needs it",
}


def installation() -> str:
    """What the core brings and each extra adds, and why the large packages are there."""
    found = load("installation")
    if not found:
        return "Not measured yet (`installation.json`)."
    core, seconds = found["core"], found["core"]["seconds"]
    lines = ["| install | packages | MB | seconds |", "| --- | --- | --- | --- |"]
    times = ", ".join(f"{took:,} ({which})" for which, took in seconds.items())
    lines.append(f"| the core | {core['packages']} | {core['mb']:,} | {times} |")
    large = dict(core["large"])
    for name, extra in found["extras"].items():
        lines.append(f"| `[{name}]` | +{extra['packages']} | +{extra['mb']:,} | +{extra['seconds']:,} |")
        large |= extra["large"]
    lines += ["", "| large package | MB | why it is there |", "| --- | --- | --- |"]
    for name, mb in sorted(large.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {mb:,} | {WHY.get(name, 'a package above needs it')} |")
    load_then = " to ".join(f"{one:.0f}" for one in found["load"])
    cuda = load("installation_cuda")
    said = (
        f"Measured by `benchmarks/installation.py` with torch {found['torch']}; with the CUDA build of torch "
        f"{cuda['torch']} the core has {cuda['core']['packages']} packages and {cuda['core']['mb']:,} MB, and "
        f"`[structured]` adds {cuda['extras']['structured']['mb']} MB. Sizes are those of the installed files. The "
        "seconds are those of uv and hang on the network and the load, which was "
        f"{load_then} on {found['machine']['cores']} cores."
    )
    return "\n".join([*lines, "", said])


def devices() -> str:
    """Which devices were compared with plain float32, when and by whom, and what came of it."""
    head = ("device", "system", "date", "by", "torch", "parts equal", "largest difference", "switched off")
    files = sorted((RESULTS / "devices").glob("*.json"))
    rows = []
    for checked in (json.loads(file.read_text(encoding="utf-8")) for file in files):
        parts = checked["rows"]
        equal = sum(part["equal"] for part in parts)
        rows.append(
            (
                checked["name"],
                checked["system"],
                checked["date"][:10],
                checked["by"],
                checked["versions"]["torch"],
                f"{equal} of {len(parts)}",
                ", ".join(f"{name} {most}" for name, most in _largest_differences(parts)),
                ", ".join(checked["off"]) or "nothing",
            )
        )
    return _table_of(head, rows)


def _largest_differences(parts: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The largest difference of each way to compute, in percent of the largest value."""
    for precision, kernels in dict.fromkeys((part["precision"], part["kernels"]) for part in parts):
        own = [part["difference"] for part in parts if (part["precision"], part["kernels"]) == (precision, kernels)]
        most = "failed" if None in own else f"{100 * max(own):.2g}%"
        yield f"{precision}{' by kernels' if kernels else ''}", most


def verdict() -> str:
    """The end of the spam example's study as the command prints it."""
    names = {field.name for field in fields(StudyResult)}
    found = {key: value for key, value in load("study_spam").items() if key in names}
    printed = io.StringIO()
    with redirect_stdout(printed), Output(as_json=False) as output:
        output.study(from_plain(StudyResult, found | {"report": "trimtab-demo-spam/.trimtab/studies/ID/report.html"}))
    table, *told = printed.getvalue().strip().split("\n\n")
    rows = [line.rstrip() for line in table.splitlines()]
    lines = [textwrap.fill(" ".join(line.split()), 100) for part in told for line in (*_whole_lines(part), "")]
    return "\n".join(("```text", *rows, "", *lines[:-1], "```"))


def _whole_lines(part: str) -> list[str]:
    """The lines of a printed part before a terminal wrapped them: a list's entries, or one paragraph."""
    head, *entries = part.split("\n- ")
    return [head, *(f"- {entry}" for entry in entries)]


def safe_periods() -> str:
    """The period by the mean and with what was watched, and the share of cycles that end below the target."""
    head = ("occasions a month, facts that change each time", "watched", "mean formula: months, below the target")
    rows = [
        (
            f"{row['bursts_a_month']:g}, {row['share_of_each']:.1%}",
            f"{row['watched_months']:.0f} months",
            *(f"{row[how]['months']:.1f}, {row[how]['below']:.1%}" for how in ("mean", "watched")),
        )
        for row in (load("safe_period") or {"rows": []})["rows"]
    ]
    return _table_of((*head, "with `watched_months` and `bursts`"), rows)


def today_losses() -> str:
    """What following today's arm loses, in points of 100, beside the best naive rule of each world."""
    head = ("true scores", "scores", "questions", "not shown", "today", "best naive rule", "difference", "waiting")
    rows = []
    for cell in (load("today_simulation") or {"cells": []})["cells"]:
        own, gap, error = cell["loss"], cell["above_best_naive"], cell["error"]
        rule = min((one for one in own if one != "today"), key=lambda one: own[one])
        worse = "**" if gap > 2 * error else ""
        told = f"{worse}{gap:+.2f} ± {error:.2f}{worse}"
        row = [cell["arms"], cell["scores"], cell["questions"], f"{cell['not_shown']:.0%}", f"{own['today']:.2f}"]
        rows.append((*row, f"{own[rule]:.2f}, {rule}", told, f"{own['shown, else waiting']:.2f}"))
    return _table_of(head, rows)


def today_chances() -> str:
    """How often what was said to be so with some chance was so, over all worlds."""
    bins: dict[tuple[float, float], list[float]] = {}
    for cell in (load("today_simulation") or {"cells": []})["cells"]:
        for row in cell["said"]:
            found = bins.setdefault((row["from"], row["to"]), [0.0, 0.0, 0.0])
            for place, value in enumerate((1.0, row["said"], row["so"])):
                found[place] += value * row["count"]
    rows = [
        (f"{low:.0%} to {high:.0%}", f"{count:,.0f}", f"{said / count:.1%}", f"{so / count:.1%}")
        for (low, high), (count, said, so) in sorted(bins.items())
    ]
    return _table_of(("chance that was said", "arms", "said on average", "was so"), rows)


DOCUMENT_STUDIES = {
    "study_handbook-documents": "handbook",
    "study_xquad-documents": "XQuAD",
    "study_endoflife": "endoflife",
}


def documents() -> str:
    """Every arm that answers from documents on three sets: right, invented, abstained, words, latency, cost; and the
    reader beside them."""
    found = {name: load(name) or {} for name in DOCUMENT_STUDIES}
    found = {name: study for name, study in found.items() if "answers_told" in study}
    if not found:
        return "Not measured yet (`benchmarks/studies.py`)."
    columns = (
        "documents",
        "arm",
        "right [95% interval]",
        "invented",
        "abstained",
        "rightly",
        "words",
        "one answer, median",
    )
    columns += ("training", "machine hours a year")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    readers = (load("reader") or {"tasks": {}})["tasks"]
    for name, study in found.items():
        title = DOCUMENT_STUDIES[name]
        for arm in study["arms"]:
            if arm["status"] != "done":
                lines.append(f"| {title} | `{arm['arm']}` | {arm['why']} |" + " |" * (len(columns) - 3))
                continue
            told = study["answers_told"][arm["arm"]]
            epochs = arm["extras"].get("epochs")
            cells = [title, f"`{arm['arm']}`", f"{arm['score']:.2f} [{arm['low']:.2f}, {arm['high']:.2f}]"]
            cells += _told(told)
            cells += [f"{arm['latency_p50_ms']:.0f} ms", f"{epochs:.2f} epochs" if epochs else "none"]
            cells.append(f"{arm['cost']['total'] / 3600:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
        reader = readers.get(study["task"])
        if reader:
            seconds = f"{reader['seconds_a_question'] * 1000:.0f} ms"
            trained = f"{reader['train_seconds']:.0f} s with dev"
            cells = [title, "a span reader", f"{reader['right']:.2f}", *_told(reader), seconds, trained, ""]
            lines.append(f"| {' | '.join(cells)} |")
    machine = next(iter(found.values()))["manifest"]["machine"]["processor"]
    return "\n".join([*lines, "", f"Processor: {machine}, two cores."])


def _told(answers: dict[str, float]) -> list[str]:
    rightly = (
        f"{answers['abstained_rightly']:.2f} of {answers['without_answer']}" if "without_answer" in answers else ""
    )
    return [f"{answers['invented']:.2f}", f"{answers['abstained']:.2f}", rightly, f"{answers['words']:.1f}"]


def extract() -> str:
    """How often the sentence that `extract` finds answers, with the weights that are built in and with weights that
    never saw the set."""
    found = load("extract")
    if not found:
        return "Not measured yet (`benchmarks/extract.py`)."
    least = f"{found['threshold']:g}"
    columns = ("documents", "questions", "holds the answer", "one of three does", "nearest by embedding alone")
    columns += (
        f"given from a chance of {least}: holds it",
        "another sentence",
        "given where the documents have no answer",
    )
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for kind, title in (("sets", ""), ("left_out", ", weights fitted on the other sets alone")):
        for name, figures in found[kind].items():
            at = figures["at"][least]
            cells = [f"{name}{title}", f"{figures['questions']:,}"]
            cells += [
                f"{figures[key]:.2f}"
                for key in ("first_holds_answer", "one_of_three_holds_answer", "nearest_holds_answer")
            ]
            cells += [f"{at[key]:.2f}" for key in ("holds", "other_sentence", "answered_without_an_answer")]
            lines.append(f"| {' | '.join(cells)} |")
    speed = ", ".join(
        f"{figures['milliseconds_a_question']:.0f} ms ({name})" for name, figures in found["sets"].items()
    )
    return "\n".join([*lines, "", f"A question alone takes {speed}; processor: {found['machine']['processor']}."])


def retrieval_sets() -> str:
    """Mean reciprocal rank of the first right passage by size of passages and weight of vectors, over five sets."""
    found = load("retrieval_sets")
    columns = ("words of a passage, weight of vectors", *found["sets"], "mean", "above the former default (120, 0.5)")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for setting, mean in found["mean"].items():
        cells = [setting, *(f"{figures['settings'][setting]['mrr']:.3f}" for figures in found["sets"].values())]
        cells += [f"{mean['mrr']:.3f}", f"{mean['mrr_above']:+.4f} ± {mean['standard_error']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    counts = ", ".join(f"{figures['questions']:,} of {name}" for name, figures in found["sets"].items())
    return "\n".join([*lines, "", f"Questions: {counts}."])


def public_tasks() -> str:
    """The arm that each public task would use beside the best of the thirty-line baselines."""
    columns = (
        "task",
        "rows: train, test",
        "used arm, of",
        "score",
        "best baseline",
        "its score",
        "p",
        "fresh",
        "minutes",
    )
    rows = [(name, *_public_task(figures)) for name, figures in load("public_tasks").items()]
    return _table_of(columns, rows)


def _public_task(figures: dict[str, Any]) -> tuple[str, ...]:
    if "problem" in figures:
        return (
            "",
            f"none ({figures['problem'].removeprefix('trimtab: ').split(';')[0]})",
            *[""] * 5,
            figures["budget"],
        )
    name, best = max(figures["baselines"].items(), key=lambda one: one[1]["score"])
    chosen = "" if figures["choice"] else ", no choice"
    counts, fresh = figures["rows"], figures["fresh"]
    return (
        f"{counts['train']:,}, {counts['test']:,}",
        f"`{figures['used']}`, {len(figures['arms'])} of {len(figures['arms']) + len(figures['not measured'])}{chosen}",
        f"{figures['arms'][figures['used']]:.3f} {figures['metric']}",
        name,
        f"{best['score']:.3f}",
        f"{best['p']:.2g}" if best["p"] else "< 0.0001",
        "" if fresh is None else f"{fresh:.3f}",
        f"{figures['minutes']:g} of {figures['budget']}",
    )


def support() -> str:
    """What documents alone answer of three documentations."""
    found = load("support")
    columns = ("documentation", "right", "wrong, said to hold the answer", "wrong, said that it may", "falsely refused")
    columns += ("one of three is right", "refused where there is none")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for figures in found["sets"].values():
        counts = figures["counts"]
        keys = ("right", "wrong_said_to_hold", "wrong_said_that_it_may", "falsely_refused", "one_of_three_is_right")
        cells = [f"{figures['repository']} ({figures['use']})"]
        cells += [f"{counts[key]} of {counts['with_an_answer']}" for key in keys]
        cells.append(f"{counts['refused_without_an_answer']} of {counts['without_an_answer']}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def audit() -> str:
    """Processor seconds and memory of the audit by number of rows, and what MinHash finds of the exact join's pairs."""
    found = load("audit")
    lines = [
        "| rows | made: wall, processor, processor a row, memory, join | real: the same |",
        "| --- | --- | --- |",
    ]
    sizes = found["audit"]["made"]
    for rows in sizes:
        cells = []
        for kind in ("made", "real"):
            one = found["audit"][kind][rows]
            cells.append(
                f"{one['seconds']:.1f} s, {one['processor_seconds']:.1f} s, {one['microseconds_a_row']:,} µs, "
                f"{one['peak_mb']:,} MB, {one['near_duplicates']}"
            )
        lines.append(f"| {int(rows):,} | {' | '.join(cells)} |")
    recall = found["recall"]
    held = "; ".join(
        f"{one['minhash_pairs']:,} of {one['exact_pairs']:,} pairs on {one['rows']:,} "
        f"{'rows of Banking77 with edits' if name == 'real' else 'rows of floods made to be its worst case'}"
        for name, one in recall.items()
    )
    return "\n".join(
        [*lines, "", f"MinHash finds of the exact join: {held}. Processor: {found['machine']['processor']}."]
    )


def passages() -> str:
    """Building, memory, disk, search and recall of the index by number of passages; the kinds of index; embedding."""
    found = load("million_passages")
    sizes = sorted((int(count), one) for count, one in found["sizes"].items())
    head = ("passages", "build: wall, processor, peak memory, disk", "open", "one document changed")
    asked = ("passages", "vectors", "words", "hybrid", "recall@10 of the approximate index")
    parts = [
        _table_of(head, [_built(count, one["build"], one["search"]) for count, one in sizes]),
        _table_of(asked, [_searched(count, one["search"]) for count, one in sizes]),
    ]
    if "indexes" in found:
        parts.append(_index_kinds(found["indexes"]))
    if "embedding" in found:
        rates = (
            f"{one['texts'] / one['processor_seconds']:.0f} passages of {words} words"
            for words, one in found["embedding"]["by_words"].items()
        )
        model = found["embedding"]["model"]
        parts.append(
            f"A second of the processor embeds {', or '.join(rates)} (`{model}`); the figures above embed none."
        )
    loads = [one[step]["load"] for _, one in sizes for step in ("build", "search")]
    parts.append(
        f"Processor: {found['machine']['processor']}, {found['machine']['cores']} cores; the load was {min(loads):.0f} "
        f"to {max(loads):.0f} processes."
    )
    return "\n\n".join(parts)


def _built(count: int, built: dict[str, Any], asked: dict[str, Any]) -> tuple[str, ...]:
    return (
        f"{count:,}",
        f"{_seconds(built['seconds'])}, {_seconds(built['processor_seconds'])}, {built['peak_mb']:,.0f} MB, "
        f"{built['disk_mb']:,.0f} MB",
        f"{asked['open_seconds']:.1f} s, {asked['open_mb']:,.0f} MB",
        f"{built['change_seconds']:.1f} s",
    )


def _searched(count: int, asked: dict[str, Any]) -> tuple[str, ...]:
    each = [f"{asked[name]['p50_ms']:.0f}, {asked[name]['p95_ms']:.0f} ms" for name in ("vectors", "words", "hybrid")]
    found = asked.get("approximate")
    if found is None:
        return (f"{count:,}", *each, "exact")
    own, scan = 1000 * found["seconds_p50"], 1000 * found["exact_seconds_p50"]
    return (f"{count:,}", *each, f"{found['recall']:.3f} in {own:.0f} ms, the scan takes {scan:,.0f} ms")


def _index_kinds(found: dict[str, Any]) -> str:
    """For each kind of approximate index, the cost of building it and its cheapest search with enough recall."""
    rows = []
    for kind, one in found["kinds"].items():
        enough = [search for search in one["searches"] if search["recall"] >= 0.95]
        cheapest = min(enough, key=lambda search: search["processor_ms"], default=None)
        best = max(search["recall"] for search in one["searches"])
        told = "none" if cheapest is None else f"{cheapest['recall']:.3f} in {cheapest['processor_ms']:.1f} ms"
        rows.append((f"`{kind}`", f"{one['processor_seconds']:.1f} s", f"{one['mb']:.0f} MB", told, f"{best:.3f}"))
    head = (f"{found['passages']:,} vectors", "built in", "size", "cheapest recall@10 from .95 on", "best")
    return f"{_table_of(head, rows)}\n\nSeconds of the processor, not of the clock."


def right_answers() -> str:
    """How the metric contains judges answers that people labelled: the half kept from tuning, by set and by kind."""
    found = load("right_answers")
    if not found:
        return "Not measured yet."
    now, before = found["now"], found["before"]
    sets = {"qa-eval": "QA-Eval", "kinds": "by kind and language", "pairs": "the first 400"}
    head = ["kind", "right answers", "called wrong", "undecided", "wrong answers", "called right", "undecided"]
    keys = ("right", "false_rejects", "right_unsure", "wrong", "false_accepts", "wrong_unsure")
    rows = []
    for name, title in sets.items():
        halves = {
            title: now[name]["held"],
            f"{title}, before": before[name]["held"],
            f"{title}, tuned": now[name]["tune"],
        }
        rows += [[f"**{told}**", *(f"{half['all'][key]:,}" for key in keys)] for told, half in halves.items()]
        kinds = {} if name == "pairs" else now[name]["held"]
        rows += [[kind, *(f"{each[key]:,}" for key in keys)] for kind, each in kinds.items() if kind != "all"]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def drafted_questions() -> str:
    """How far settings of retrieval stand in the same order by drafted questions as by real ones."""
    found = load("drafted_questions")
    if not found:
        return "Not measured yet."
    head = [
        "documents",
        "drafted",
        "real",
        "left out",
        "order alike (Kendall's τ)",
        "lost by the choice",
        "by the default",
    ]
    rows = [
        [
            name,
            f"{row['questions']['drafted']:,}",
            f"{row['questions']['real']:,}",
            f"{sum(row['left out'].values()):,}",
            f"{row['order']:.2f}",
            f"{100 * row['lost by the choice']:.1f}",
            f"{100 * row['lost by the default']:.1f}",
        ]
        for name, row in found["retrieval"].items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def probes() -> str:
    """What probes found in studies of bundled examples and of public data."""
    found = load("probes")
    if not found:
        return "Not measured yet."
    head = ["study", "arm to take", "change", "without it", "with it", "difference", "questions", "finding"]
    rows = [
        [
            name,
            arm,
            probe["change"],
            f"{probe['before']:.2f}",
            f"{probe['after']:.2f}",
            f"{probe['difference']:+.2f} ({probe['low']:+.2f} to {probe['high']:+.2f})".replace("-", "−"),
            f"{probe['n']:,}",
            "breaks" if probe["found"] else "no loss shown",
        ]
        for name, study in sorted(found["sets"].items())
        for arm, listed in study["probes"].items()
        for probe in listed
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def audits() -> str:
    """What an audit's corrected figures come to in simulated studies."""
    found = load("audit_simulation")
    if not found:
        return "Not measured yet."
    head = [
        "truly right",
        "sensitivity, specificity",
        "test questions",
        "judged of",
        "score held: metric alone",
        "corrected",
    ]
    head += ["difference held: metric alone", "corrected", "target claimed", "metric found uneven"]
    rows = [
        [
            " and ".join(f"{share:g}" for share in row["true"]),
            "; ".join(f"{one:g}, {other:g}" for one, other in row["metric"]),
            row.get("slices", "all alike"),
            f"{row['audited']} of {row['questions']}",
            *(
                f"{row.get(key, 0.0):.1%}"
                for key in (
                    "score_covered_by_the_metric",
                    "score_covered",
                    "difference_covered_by_the_metric",
                    "difference_covered",
                    "target_claimed",
                    "uneven",
                )
            ),
        ]
        for row in found["rows"]
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    weighted = [row for row in found["rows"] if "slices" in row]
    fewer = (
        f", {_studies(weighted)} where slices are weighted; those where too little is judged are left out "
        f"({min(row['used'] for row in weighted):.0%} to {max(row['used'] for row in weighted):.0%} are used)"
        if weighted
        else ""
    )
    return (
        f"{table}\n\n{found['studies']:,} studies each{fewer}. Aims: 95% held, targets claimed falsely in at most 5%."
    )


def surface_checks() -> str:
    """Precision and recall of every check of a site's audit, on the example with planted faults."""
    found = load("surface_checks")
    if not found:
        return "Not measured yet."
    lines = ["| check | severity | planted | found | told | wrong |", "| --- | --- | --- | --- | --- | --- |"]
    total = {"planted": 0, "found": 0, "told": 0, "wrong": 0}
    for name, row in found["checks"].items():
        total = {key: total[key] + row[key] for key in total}
        if not row["planted"]:
            continue
        planted = f"{row['planted']} (in a copy)" if row["in_a_copy"] else str(row["planted"])
        lines.append(f"| `{name}` | {row['severity']} | {planted} | {row['found']} | {row['told']} | {row['wrong']} |")
    right = total["told"] - total["wrong"]
    others = [f"`{name}`" for name, row in found["checks"].items() if not row["planted"]]
    wrong = sum(row["wrong"] for row in found["checks"].values() if not row["planted"])
    return "\n".join(
        [
            *lines,
            "",
            f"Of {total['planted']} faults {total['found']} were found; {right} of {total['told']} findings are "
            "on a page with the fault.",
            "",
            f"Not planted there, and told {wrong or 'nowhere'}{' times' * bool(wrong)}: {', '.join(others)}.",
        ]
    )


def planted_faults() -> str:
    """Faults found on sites of others, by kind: the one that the rules were improved on, and those only shown."""
    found = load("planted_faults")
    if not found:
        return "Not measured yet."
    sites = {"improved on": ["drf"], "only shown": ["flask", "typer"]}
    kinds = sorted({kind for site in found["sites"].values() for run in site["after"] for kind in run["kinds"]})

    def count(named: list[str], which: str, kind: str) -> str:
        rows = [
            run["kinds"].get(kind, {"found": 0, "planted": 0}) for one in named for run in found["sites"][one][which]
        ]
        return f"{sum(row['found'] for row in rows)} of {sum(row['planted'] for row in rows)}"

    ways = [(named, which) for named in sites.values() for which in ("before", "after")]
    head = [f"{name}, {which}" for name in sites for which in ("before", "after")]
    lines = [f"| kind | {' | '.join(head)} |", f"| --- |{' --- |' * len(head)}"]
    lines += [f"| {kind} | {' | '.join(count(*way, kind) for way in ways)} |" for kind in kinds]
    wrong = [
        sum(len(run["false_alarms"]) for one in named for run in found["sites"][one][which]) for named, which in ways
    ]
    return "\n".join([*lines, f"| *false alarms on clean pages* | {' | '.join(map(str, wrong))} |"])


def production() -> str:
    """Quality in use from few labels, in simulated traffic."""
    found = load("production_simulation")
    if not found:
        return "Not measured yet."
    head = ["labels of answers", "truly right", "arm", "drawn", "held: labels alone", "with confidence"]
    head += ["width: labels alone", "with confidence", "labels saved"]
    rows = [
        [
            f"{cell['labels']} of {cell['answers']:,}",
            f"{cell['true']:.2f}",
            "calibrated" if not cell["shift"] else f"too sure by {-cell['shift']:g}",
            {"random": "at random", "uncertain": "where unsure"}[cell["drawing"]],
            *(f"{cell[which]['covered']:.1%}" for which in ("plain", "powered")),
            *(f"{cell[which]['width']:.3f}" for which in ("plain", "powered")),
            f"{cell['labels_saved']:.0f}",
        ]
        for cell in found["cells"]
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return f"{table}\n\n{found['runs']:,} runs each. Aim: 95% held, within what {found['runs']:,} runs can tell."


def canary_false() -> str:
    """How often a canary of versions that are alike ends by a false claim."""
    found = load("canary_simulation")
    if not found:
        return "Not measured yet."
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in found["alike"]:
        more = "" if cell["correlation"] == 0.3 else f", correlation {cell['correlation']:g}"
        groups.setdefault(f"Zipf exponent {cell['zipf']:g}{more}", []).append(cell)
    head = ["users", "said to be better", "worst cell", "said to be worse", "worst cell"]
    rows = [
        [name, *(text for key in ("better", "worse") for text in _mean_and_most([cell[key] for cell in cells]))]
        for name, cells in groups.items()
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    alarms = {
        guard: max(cell["alarms"] for cell in found["guarded"] if cell["guard"] == guard)
        for guard in ("errors", "latency")
    }
    said = (
        f"{found['runs']:,} canaries a cell; each row is nine cells: right in 50, 80 and 95% of answers, shares "
        f"of 5, 10 and 50%. Aim: at most 5%. False alarms of errors in the worst cell: {alarms['errors']:.1%}, "
        f"of a 95th percentile that is at its limit: {alarms['latency']:.1%}; aim {found['guard_level']:.0%}."
    )
    return f"{table}\n\n{said}"


def _mean_and_most(shares: Sequence[float]) -> tuple[str, str]:
    return f"{sum(shares) / len(shares):.1%}", f"{max(shares):.1%}"


def canary_users() -> str:
    """How many users it takes a canary to show what is true."""
    found = load("canary_simulation")
    if not found:
        return "Not measured yet."
    head = [
        "candidate right",
        "share",
        "said",
        "users forecast",
        "decided by then",
        "users at the decision: median",
        "80% of canaries",
    ]
    rows = []
    for cell in found["different"]:
        effect = cell["candidate"] - cell["production"]
        claim = "worse" if effect < 0 else "better" if effect > 0 else f"not worse by {found['margin']:g}"
        figures = (_users(cell["median"], cell), _users(cell["eighty"], cell))
        rows.append(
            [
                f"{cell['candidate']:.0%}",
                f"{cell['share']:.0%}",
                claim,
                f"{cell['forecast']:,}",
                f"{cell['by_forecast']:.0%}",
                *figures,
            ]
        )
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return (
        f"{table}\n\n{found['runs']:,} canaries a row. Users are those of both versions who said something. Aim: 80% "
        "decided by the forecast."
    )


def canary_by_question() -> str:
    """How canaries end where users ask unequally, by users alone and with the bound by question beside it."""
    found = load("canary_simulation")
    if not found or "by_question" not in found:
        return "Not measured yet."
    head = ["users ask by", "share", "right in production", "of the candidate", "by users alone", "with questions, too"]
    head += ["users forecast", "ended by then"]
    rows = []
    for cell in found["by_question"]:
        is_few = cell["law"] == "few"
        law = "3% ask 67%" if is_few else f"{cell['law'].replace('zipf', 'Zipf')} {cell['parameter']:g}"
        production, candidate = (
            f"{right[0]:.0%}, the 3% {right[1]:.0%}" if is_few else f"{right[0]:.0%}"
            for right in (cell["production"], cell["candidate"])
        )
        ends = (_canary_ends(cell[key], cell["runs"]) for key in ("alone", "both"))
        forecast = (f"{cell['forecast']:,}", f"{cell['by_forecast']:.0%}")
        rows.append([law, f"{cell['share']:.0%}", production, candidate, *ends, *forecast])
    said = f"{found['by_question'][0]['runs']:,} canaries a row, 5,000 users, 15,000 answers, a margin of"
    said = (
        f"{said} {found['margin']:g}. Forecast: for two versions that are alike, by user and by question, 80% by then;"
    )
    return f"{_table_of(head, rows)}\n\n{said} more than 5,000 are not reached here."


def _canary_ends(ends: dict[str, int], runs: int) -> str:
    named = {"promoted": "promoted", "rolled_back": "rolled back", "undecided": "undecided"}
    return ", ".join(f"{name} {ends[key] / runs:.1%}" for key, name in named.items() if ends.get(key))


def _users(count: float | None, cell: dict[str, Any]) -> str:
    return f"more than {cell['users']:,}" if count is None else f"{count:,.0f}"


def _table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


SHIFTS = {
    "topic": "intents that are new",
    "typos": "typing errors",
    "script": "another script",
    "labels": "one intent more often",
    "retriever": "passages at random",
}


def drift_alarms() -> str:
    """False alarms of `trimtab drift` without drift, and the run length."""
    found = load("drift_alarms")
    if not found or "without" not in found:
        return "Not measured yet."
    rows = [
        [
            {"banking77": "bank customers' messages", "endoflife": "questions about releases"}[source],
            size,
            f"{one['replays']:,}, {one['windows']:,}",
            f"{one['alarms']:,} ({one['rate']:.2%} of the windows)",
            f"{one['run_length']:,.0f} windows",
            f"{one['promised']:,}",
        ]
        for source, sizes in found["without"].items()
        for size, one in sizes.items()
    ]
    head = ["questions", "window", "replays, windows looked at", "false alarms", "run length", "promised at least"]
    return _table_of(head, rows)


def drift_delays() -> str:
    """How soon `trimtab drift` finds an injected shift."""
    found = load("drift_alarms")
    shifts = found["shifts"] if found else {}
    sizes = [size for size, cells in shifts.items() if cells.keys() == SHIFTS.keys()]
    if not sizes:
        return "Not measured yet."
    rows = []
    for name, title in SHIFTS.items():
        for share in shifts[sizes[0]][name]:
            cells = [shifts[size][name][share] for size in sizes]
            rows.append(
                [
                    title,
                    f"{float(share):.0%}",
                    *(f"{one['windows']:.1f} windows, {one['questions']:,.0f} questions" for one in cells),
                    *(f"{one['first_window']:.0%}" for one in cells),
                ]
            )
    head = ["shift", "of the questions", *(f"mean delay, windows of {size}" for size in sizes)]
    head += [f"found in the first {size}" for size in sizes]
    first = next(iter(shifts[sizes[0]]["topic"].values()))
    return (
        _table_of(head, rows)
        + f"\n\n{first['replays']} replays each; what is not found in {first['cap']} windows counts as {first['cap']}."
    )


def drift_peer() -> str:
    """The same windows through Evidently."""
    found = load("drift_alarms")
    if not found or "evidently" not in found:
        return "Not measured yet."
    told = found["evidently"]
    rows = []
    for cell, one in told.items():
        name, _, share = cell.partition(" ")
        title = f"{SHIFTS[name]}, {float(share):.0%}" if share else "none"
        shares = (one["trimtab"], one["embeddings"], one["dataset"], one["any_column"])
        rows.append([title, str(one["windows"]), *(f"{share:.1%}" for share in shares)])
    head = ["shift", "windows", "`trimtab drift`", "its embedding drift", "its data set drift", "any of its columns"]
    version = next(iter(told.values()))["version"]
    return _table_of(head, rows) + f"\n\nShare of windows with an alarm; Evidently {version}."


AGES = (0, 1, 2, 3, 5, 8, 11)  # months after the first, of which accuracies are shown
WAYS = ("one rate", "by kind", "spread")  # to estimate how fast facts change
KINDS_OF_FACTS = {"eol": "end of support", "latest": "latest release", "when": "date of the latest release"}


def staleness() -> str:
    """Accuracy of each arm by months since it was built, under each policy."""
    found = load("staleness")
    if not found:
        return "Not measured yet (`benchmarks/staleness.py`)."
    head = ["arm", "documents", *("at first" if age == 0 else f"after {age}" for age in AGES), "outdated at the end"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for arm, policies in found["arms"].items():
        for policy in ("replaced", "kept beside", "not updated"):
            if policy not in policies:
                continue
            at = {found["months"].index(one["month"]): one for one in policies[policy]}
            cells = [
                f"{at[age]['accuracy']:.2f} [{at[age]['low']:.2f}, {at[age]['high']:.2f}]" if age in at else ""
                for age in AGES
            ]
            told = policy if "replaced" in policies else "in the weights"
            lines.append(f"| `{arm}` | {told} | {' | '.join(cells)} | {policies[policy][-1]['outdated']:.2f} |")
    one = next(iter(found["arms"].values()))
    told = f"{one['questions']} questions about {one['products']} products. Processor: {one['processor']}."
    missing = [f"`{arm}`" for arm in ("rag", "lora-docs", "lora+rag") if arm not in found["arms"]]
    if missing:
        told += f" Not measured yet: {', '.join(missing)} (`benchmarks/staleness.py`)."
    return "\n".join([*lines, "", told])


def staleness_periods() -> str:
    """The safe period that the first months foretell, by what may be lost, beside what happened."""
    found = load("staleness")
    if not found:
        return "Not measured yet."
    head = ["may be lost", "one rate [95%]", "a rate by kind [95%]", "spread rates", "happened"]

    def months(value: float | str | None) -> str:
        return (
            f"not in {len(found['months']) - 1}"
            if value is None
            else value
            if isinstance(value, str)
            else f"{value:.1f}"
        )

    rows = [
        [
            f"{entry['loss']:.0%}",
            *(f"{months(entry[way])} [{', '.join(map(months, entry[f'{way}, 95%']))}]" for way in WAYS[:2]),
            months(entry["spread"]),
            months(entry["happened"]),
        ]
        for entry in found["rates"]["periods"]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def staleness_kinds() -> str:
    """Rates by kind of fact, and what they and one rate for all foretell of the last month."""
    found = load("staleness")
    if not found:
        return "Not measured yet."
    rates = found["rates"]
    head = ["facts", "number", "share that changes", "times a month", "changed at the end: by its own rate"]
    head += ["by one rate", "happened"]
    rows = [
        [
            KINDS_OF_FACTS[kind],
            str(own["questions"]),
            f"{own['share']:.2f}",
            f"{own['per_month']:.2g}",
            f"{own['foretold'][-1]:.2f}",
            f"{own['by one rate'][-1]:.2f}",
            f"{rates['changed'][kind][-1]:.2f}",
        ]
        for kind, own in rates["estimates"]["by kind"].items()
    ]
    one = rates["estimates"]["one rate"]
    rows.append(
        [
            "**all**",
            f"{rates['facts']:,}",
            f"{one['share']:.2f}",
            f"{one['per_month']:.2g}",
            f"{rates['foretold']['by kind'][-1]:.2f}",
            f"{rates['foretold']['one rate'][-1]:.2f}",
            f"{rates['changed']['all'][-1]:.2f}",
        ]
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def redecided() -> str:
    """The verdicts of finished studies under the rules of before and of now."""
    found = load("redecided")
    if not found:
        return "Not measured yet (`redecided.json`)."
    lines = []
    for row in found["studies"]:
        lines += [f"**{row['task']}** ({row['arm_before']} → {row['arm_now']})", ""]
        lines += [f"Before: {row['before']}", "", f"Now: {row['now']}", ""]
    return "\n".join(lines).rstrip()


def agents() -> str:
    """The table of assistants' agents, as the package holds it."""
    head = ["agent", "vendor", "role", "says that it obeys", "checked", "departs from RFC 9309"]
    rows = [
        [
            f"`{one.token}`",
            f"[{one.vendor}]({one.source})" if one.source else one.vendor,
            one.role,
            "yes" if one.obeys else "no",
            f"{one.checked}{'' if one.seen == 'vendor' else ', second-hand'}",
            one.departs,
        ]
        for one in assistant_agents()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def crawls() -> str:
    """How long a crawl of 10,000 pages takes, beside scrapy on the same site."""
    found = load("crawl")
    if not found:
        return "Not measured yet (`benchmarks/crawl.py`)."
    lines = ["| crawl | wall | processor | memory |", "| --- | --- | --- | --- |"]
    names = {"trimtab": "Trimtab", "scrapy": f"scrapy {found['scrapy']}"}
    rows = [(names[side], figures) for side, figures in found["median"].items()]
    for name, one in (*rows, ("Trimtab again, nothing changed", found["again_under_conditions"])):
        lines.append(f"| {name} | {one['seconds']:.0f} s | {one['processor_seconds']:.0f} s | {one['peak_mb']:,} MB |")
    said = (
        f"{found['pages']:,} pages of a local server with no limit of rate on either side (`benchmarks/crawl.py`), "
        "medians of two runs."
    )
    loads = ", ".join(f"{one:.0f}" for one in found["load_before_each"])
    said += (
        f" Processor: {found['machine']['processor']}, {found['machine']['cores']} cores, shared with other work "
        f"(load {loads} before the runs), so compare processor seconds."
    )
    return "\n".join([*lines, "", said])


PEOPLE = {
    "pandalm": "PandaLM: LLaMA-7B and another model",
    "students": "students: the longer and the shorter answer",
    "begin": "BEGIN: made to keep to the source, or not",
    "llmbar": "LLMBar: first and second answer",
}
ESTIMATORS = ("corrected", "GLIDE PPI++", "GLIDE ASI")


def judgements() -> str:
    """Judged scores on public human judgements, by data and size: the worst judge, beside GLIDE."""
    found = load("judgements")
    if not found:
        return "Not measured yet (`benchmarks/judgements.py`)."
    cells: dict[tuple[str, int, int, bool], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        cells.setdefault((row["data"], row["questions"], row["labels"], row["groups"]), []).append(row)

    def worst(rows: Sequence[dict[str, Any]], figure: str, least: bool) -> str:
        values = [[row[f"{figure}, {name}"] for row in rows if f"{figure}, {name}" in row] for name in ESTIMATORS]
        return " · ".join(f"{(min if least else max)(own):.1%}" if own else "none" for own in values)

    rows = []
    for (data, questions, labels, groups), own in cells.items():
        equal = [row for row in own if row["arms"] == "equal"]
        alone = max(row["wrongly better, judge alone"] for row in equal)
        worth = {row["judge"]: row["labels of the same width"] for row in own if row["judge"] != "says nothing"}
        rows.append(
            [
                PEOPLE[data],
                f"{questions}, {labels}" + (" in 30 groups" if groups else ""),
                worst(own, "score covered", True),
                worst(own, "difference covered", True),
                f"{alone:.0%} · {worst(equal, 'wrongly better', False)}",
                f"{min(worth.values()):.0f} to {max(worth.values()):.0f}",
            ]
        )
    head = [
        "people's judgements of",
        "questions, graded",
        "score held: ours · PPI++ · ASI",
        "difference held",
        "equal arms called different: judge alone · ours · PPI++ · ASI",
        "labels alone of the same width",
    ]
    ours, theirs = (
        [row[f"half width of the difference, {name}"] for row in found["rows"] if "score covered, GLIDE PPI++" in row]
        for name in ("corrected", "GLIDE PPI++")
    )
    wider = sum(ours) / sum(theirs) - 1
    below = sum(row[f"{what} covered, corrected"] < 0.93 for row in found["rows"] for what in ("score", "difference"))
    said = (
        f"The worst judge of each row, {found['studies']:,} studies each; GLIDE and the judge alone in the first 300. "
        f"Over all {len(found['rows'])} cells our intervals of a difference are {abs(wider):.0%} "
        f"{'wider' if wider > 0 else 'narrower'} than PPI++'s. Ours hold in fewer than 93% in {below} of "
        f"{2 * len(found['rows'])}."
    )
    return f"{_table_of(head, rows)}\n\n{said}"


def our_judge() -> str:
    """Judges that learnt from graded answers, beside rules and a bare model: the best on the largest part first."""
    found = load("our_judge")
    if not found:
        return "Not measured yet (`benchmarks/our_judge.py`)."

    def figure(one: dict[str, float], factor: int, digits: int) -> str:
        value, *ends = (f"{factor * end:.{digits}f}".replace("-0.00", "0.00") for end in one.values())
        return f"{value}{'%' * (factor == 100)}{f' ({ends[0]} to {ends[1]})' if ends else ''}"

    cells: dict[str, dict[str, str]] = {}
    parts: dict[str, str] = {}
    ordered = sorted(found["rows"].items(), key=lambda named: -named[1]["answers"] - named[1]["accuracy"]["value"])
    for name, row in ordered:
        data, judge, part = name.split(", ")
        parts[f"{data}, {part}"] = f"{data}: {row['answers']:,} answers, {row['questions']} {part}"
        figures = (figure(row["accuracy"], 100, 0), figure(row["kappa"], 1, 2))
        cells.setdefault(judge, {})[f"{data}, {part}"] = " · ".join(figures)
    rows = [[judge, *(own.get(part, "not run") for part in parts)] for judge, own in cells.items()]
    return _table_of(["judge", *parts.values()], rows)


def open_answers() -> str:
    """What a study of open answers says before and after its answers were graded."""
    found = load("open_answers")
    if not found:
        return "Not measured yet (`benchmarks/open_answers.py`)."

    def figure(score: dict[str, float]) -> str:
        return f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"

    before, after = found["before"], found["after"]
    columns = (before["scores"], after["scores"], found["both passes on all answers"])
    rows = [[f"`{arm}`", *(figure(scores[arm]) for scores in columns)] for arm in before["scores"]]
    head = [
        "arm",
        "the judge alone",
        f"corrected by {found['graded questions']} questions",
        "both rules, all questions",
    ]
    (alpha,) = (agreement["alpha"] for agreement in found["agreement of the passes"])
    yes = {
        by: ", ".join(f"{sum(row[by] == 'yes' for row in own)} ({arm})" for arm, own in found["read"].items())
        for by in ("judge", "strict", "lenient")
    }
    marks = (
        f"Of the ten answers of each arm that the result lists, the judge says yes to {yes['judge']}, the strict rule "
        f"to {yes['strict']} and the lenient rule to {yes['lenient']}."
    )
    return "\n".join(
        [
            f"**Before:** {before['says']}",
            "",
            f"**After {found['grades']} grades:** {after['says'].partition(' It costs')[0]}",
            "",
            _table_of(head, rows),
            "",
            f"The two rules agree with a Krippendorff's α of {figure(alpha)}, on {alpha['n']} answers. {marks}",
        ]
    )


def coverage_judging() -> str:
    """How often coverage judges rightly without labels, on labelled questions."""
    found = load("surface_coverage")
    if not found:
        return "Not measured yet (`benchmarks/surface_coverage.py`)."
    level = f"{found['sure']:g}"
    head = ["set", "called answered", "of these, the answer holds the reference", "of partly, the answer holds it"]
    head += [
        "called answered without the page that answers",
        "of passages called right, are",
        "of right passages, are called so",
    ]
    rows = []
    for name, one in found["sets"].items():
        at = one["at"][level]
        cells = (
            _share(at[key]) for key in ("answered_and_holds", "partly_and_holds", "called_answered_without_document")
        )
        called = f"{at['called_answered']:.0%} of {one['questions']}"
        rows.append([name, called, *cells, *(f"{one['passages'][key]:.0%}" for key in ("precision", "recall"))])
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    groups = found["groups"]
    best = groups["at"][f"{found['distance']:g}"]
    said = (
        f"Groups of questions: on {groups['questions']:,} messages of Banking77 with {groups['intents']} "
        f"intents, the distance in use gives {best['groups']} groups with an adjusted Rand index of "
        f"{best['adjusted_rand']:.2f}; {best['not_stable']:.0%} of them are not stable."
    )
    return f"{table}\n\n95% intervals by document. {said}"


def _share(found: dict[str, Any]) -> str:
    return f"{found['score']:.0%} ({found['low']:.0%} to {found['high']:.0%})" if found else ""


def surface_tactics() -> str:
    """What GEO's tactics do on the simulated assistant, over all sets, and in how many cells by set anything is
    shown."""
    found = load("surface_tactics")
    if not found:
        return "Not measured yet (`benchmarks/surface_tactics.py`)."
    cells = found["cells"]
    tactics = list(dict.fromkeys(cell["tactic"] for cell in cells))
    outcomes = list(dict.fromkeys(cell["outcome"] for cell in cells))
    head = ["tactic", "adopted by", *outcomes, "shown, of cells by set"]
    rows = []
    for tactic in tactics:
        for adoption in sorted({cell["adoption"] for cell in cells}):
            mine = [cell for cell in cells if cell["tactic"] == tactic and cell["adoption"] == adoption]
            whole = {cell["outcome"]: cell for cell in mine if cell["set"] == "all"}
            parts = [cell for cell in mine if cell["set"] != "all"]
            shown = [cell for cell in parts if cell["p_holm"] < 0.05]
            up = sum(cell["difference"] > 0 for cell in shown)
            rows.append(
                [
                    tactic,
                    "the page alone" if not adoption else "every page",
                    *(_moved(whole[outcome]) for outcome in outcomes),
                    f"{up} up, {len(shown) - up} down, of {len(parts)}",
                ]
            )
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    asked = ", ".join(
        f"{count} of {name} ({found['documents'][name]} pages)" for name, count in found["questions"].items()
    )
    now = {cell["outcome"]: cell["present"] for cell in cells if cell["set"] == "all"}
    said = (
        "Differences from the unedited page with 95% intervals by page; bold where shown after Holm's correction. "
        f"Questions: {asked}. "
    )
    said += "Unedited: " + ", ".join(f"{outcome} {value:.3f}" for outcome, value in now.items()) + "."
    ranks = found["cited_by_rank"]
    by_rank = (
        "Cited by rank of the own passage (unedited): "
        f"{', '.join(f'{rank}: {_share(one)}' for rank, one in ranks.items())}."
    )
    return "\n\n".join([table, said, by_rank, *(_positions(name, one) for name, one in found["positions"].items())])


def sharded_memory() -> str:
    """Memory of one process of several, by formula and as allocated."""
    found = load("sharded_memory")
    if not found:
        return "Not measured yet (`benchmarks/sharded_memory.py`)."
    passes = {(row["model"], row["method"], row["tokens"]): row for row in found["layers"]}
    layers = {"8B": 32, "70B": 80}
    rows = []
    for row in found["recipes"]:
        parts, count = row["formula_gb"], layers[row["model"]]
        by_tokens = [passes[row["model"], row["method"], tokens] for tokens in (1024, 4096, 8192)]
        kept = [count * one["formula_mb"] / 1000 for one in by_tokens]
        measured = [count * one["measured_mb"] / 1000 for one in by_tokens]
        less, less_measured = (
            [(count * one[f"{kind}_checkpointed_mb"] + one[f"{kind}_mb"]) / 1000 for one in by_tokens]
            for kind in ("formula", "measured")
        )
        rows.append(
            [
                f"{row['model']} `{row['method']}`, {row['processes']} GPUs",
                f"{parts['weights_and_optimizer']:.1f} ({row['allocated_gb']:.1f})",
                f"{parts['gathered'] + parts['gradients_of_one_group']:.1f}",
                f"{kept[0]:.1f} ({measured[0]:.1f})",
                *(f"{kept[at]:.0f} → {less[at]:.1f} ({less_measured[at]:.1f})" for at in (1, 2)),
                f"{sum(parts.values()) + kept[0]:.0f}",
                f"{sum(parts.values()) + less[2]:.0f}",
            ]
        )
    head = [
        *("GB of one process", "kept (allocated)", "gathered and on the way", "activations, 1,024 tokens (measured)"),
        *("4,096 → checkpointed (measured)", "8,192 → checkpointed (measured)"),
        *("all, 1,024", "all, 8,192 checkpointed"),
    ]
    return _table_of(head, rows)


def sharded_speed() -> str:
    """Tokens a second of several processes beside those of one, with the same cores in all."""
    found = load("sharded_speed")
    if not found:
        return "Not measured yet (`benchmarks/sharded_speed.py`)."
    rows = []
    for work in found["works"]:
        for way, speed in work["tokens_per_second"].items():
            low, high = (pick(one["tokens_per_second"] for one in work["runs"][way]) for pick in (min, max))
            share = work["of_one_process"][way]
            rows.append([f"`{work['method']}`, {way}", f"{speed:,.0f} ({low:,.0f} to {high:,.0f})", f"{share:.2f}"])
    return _table_of(["", "tokens a second (runs)", "of one process"], rows)


def _moved(cell: dict[str, Any]) -> str:
    text = f"{cell['difference']:+.3f} ({cell['low']:+.3f} to {cell['high']:+.3f})"
    return f"**{text}**" if cell["p_holm"] < 0.05 else text


def _positions(name: str, found: dict[str, Any]) -> str:
    said = ", ".join(f"{place}: {_share(one['holds_reference'])}" for place, one in found["at"].items())
    gap = found["first_against_last"]
    return (
        f"The right passage in each place before {found['model']} ({name}, {found['questions']} questions): the "
        f"answer holds the reference, by place, {said}. First less last: {gap['difference']:+.2f} "
        f"({gap['low']:+.2f} to {gap['high']:+.2f}), p = {gap['p']:.3f}."
    )


def architectures() -> str:
    """Every family that was tried: what it does here, and why not, and how many do what."""
    result = load("architectures")
    families: dict[str, dict[str, str]] = result["families"]
    lines = ["| family | answers | trains | adapter | merged | GGUF | why not |", "| --- " * 7 + "|"]
    for family, outcome in families.items():
        cells = ["yes" if outcome.get(what) == "yes" else "no" for what in ARCHITECTURE_COLUMNS]
        reasons = (outcome.get(what, "yes") for what in ("answers", "trains", "adapter"))
        reason = next((reason for reason in reasons if reason != "yes"), "")
        _, bracket, inner = reason.removesuffix(")").partition("(")
        lines.append(f"| `{family}` | {' | '.join(cells)} | {inner if bracket else reason} |")
    answering, training = (
        sum(outcome.get(what) == "yes" for outcome in families.values()) for what in ("answers", "trains")
    )
    return "\n".join(
        [
            f"Of {len(families)} families {answering} answer and {training} train, with transformers "
            f"{result['versions']['transformers']}.",
            "",
            *lines,
        ]
    )


ARCHITECTURE_COLUMNS = ("answers", "trains", "adapter", "merged", "gguf")


def clients() -> str:
    """What each public client did against our server."""
    found = load("clients")
    if found is None:
        return "Not run yet."
    rows = []
    for name, client in found["clients"].items():
        versions = ", ".join(client["versions"].values())
        failed = [f"{check} ({said})" for check, said in client["checks"].items() if said != "ok"]
        rows.append(
            (
                f"{name} {versions}",
                "; ".join(one for one in client["checks"] if client["checks"][one] == "ok"),
                "; ".join(failed) or "nothing",
            )
        )
    return _table_of(("client", "what worked", "what did not"), rows)


def votes() -> str:
    """What comes of attacks on the vote on a version, before and after the rules."""
    found = load("votes_under_attack")
    if not found or "before" not in found:
        return "Not measured yet."
    head = ["attack", "honest users", "judgements", "before: taken", "users", "canary", "now: taken", "users", "canary"]
    rows = []
    for before, now in zip(found["before"], found["after"], strict=True):
        row = [now["says"], str(now["honest"]), f"{now['sent']:,}"]
        for one in (before, now):
            row += [f"{one['taken']:,}", str(one["users"]), one["outcome"].replace("_", " ")]
        rows.append(row)
    return _table_of(head, rows)


PAGES = {
    "docs/trust/votes.md": {"votes": votes},
    "docs/trust/when-not-to-believe.md": {"open-answers": open_answers},
    "docs/how-to/serving.md": {"clients": clients},
    "docs/how-to/judge.md": {"judgements": judgements, "our-judge": our_judge},
    "docs/how-to/export.md": {"gguf": gguf},
    "docs/how-to/many-gpus.md": {"sharded-memory": sharded_memory, "sharded-speed": sharded_speed},
    "docs/how-to/surface-coverage.md": {"coverage-judging": coverage_judging, "surface-tactics": surface_tactics},
    "docs/how-to/surface-audit.md": {"surface-checks": surface_checks, "planted-faults": planted_faults},
    "docs/how-to/surface-access.md": {"agents": agents, "crawl": crawls},
    "docs/how-to/questions.md": {"drafted-questions": drafted_questions},
    "docs/how-to/probes.md": {"probes": probes},
    "docs/concepts/right-answers.md": {"right-answers": right_answers, "audits": audits},
    "docs/how-to/traffic-and-labels.md": {"production": production},
    "docs/how-to/canary.md": {
        "canary-false": canary_false,
        "canary-users": canary_users,
        "canary-by-question": canary_by_question,
    },
    "docs/how-to/drift.md": {
        "drift-alarms": drift_alarms,
        "drift-delays": drift_delays,
        "drift-peer": drift_peer,
    },
    "docs/concepts/cost.md": {"safe-period": safe_periods},
    "docs/concepts/staleness.md": {
        "staleness": staleness,
        "staleness-periods": staleness_periods,
        "staleness-kinds": staleness_kinds,
    },
    "docs/reference/architectures.md": {"architectures": architectures},
    "docs/start/install.md": {"installation": installation},
    "docs/trust/devices.md": {"devices": devices},
    "README.md": {"verdict": verdict, "studies-short": studies_short, "speed-short": speed_short},
    "docs/benchmarks/quality.md": {
        "studies": studies,
        "documents": documents,
        "objectives": objectives,
        "extract": extract,
        "support": support,
        "public_tasks": public_tasks,
        "retrieval_sets": retrieval_sets,
    },
    "docs/benchmarks/speed.md": {"speed": speed, "predicted": predicted, "audit": audit, "passages": passages},
    "docs/start/first-verdict.md": {"verdict": verdict},
    "docs/trust/simulation.md": {
        "simulation": simulation,
        "today-losses": today_losses,
        "today-chances": today_chances,
        "redecided": redecided,
    },
}


def filled(page: str) -> str:
    """The page with every table between its marks written anew."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, table in PAGES[page].items():
        start, end = f"<!-- {name}: written by docs/make_tables.py -->", f"<!-- end {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise SystemExit(f"{page}: the marks of the table {name!r} are missing")
        head, _, rest = text.partition(start)
        text = f"{head}{start}\n{table()}\n{end}{rest.partition(end)[2]}"
    return text


def main(arguments: list[str]) -> int:
    """Write the tables, or with --check only compare them."""
    stale = [page for page in PAGES if (ROOT / page).read_text(encoding="utf-8") != filled(page)]
    if arguments == ["--check"]:
        for page in stale:
            print(f"{page} is stale; run: python docs/make_tables.py", file=sys.stderr)
        return 1 if stale else 0
    for page in stale:
        (ROOT / page).write_text(filled(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
