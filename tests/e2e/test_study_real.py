"""A whole small study with the real models: passages, tuning on them, the report."""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.studies.study import study

TOWNS = {
    "Brannock": (
        "mayor",
        "Ada Quill",
        "river",
        "Tarn",
        "founded in",
        "1432",
        "market day",
        "Tuesday",
        "bus line",
        "17",
    ),
    "Ostrel": ("mayor", "Ben Hadley", "river", "Issel", "founded in", "1618", "market day", "Friday", "bus line", "4"),
    "Marwick": ("mayor", "Cora Lund", "river", "Veen", "founded in", "1277", "market day", "Monday", "bus line", "29"),
    "Tolmere": ("mayor", "Dan Voss", "river", "Harrow", "founded in", "1890", "market day", "Sunday", "bus line", "8"),
}
TASK = """
[task]
name = "towns"
kind = "answer"
instruction = "Answer from the passages in a few words."
output_tokens = 12
[data]
examples = ["questions.jsonl"]
documents = ["documents/"]
group = "fact"
[base]
model = "smollm2-135m-q4"
[target]
quality = 0.5
[study]
arms = ["prompt", "rag", "tuned"]
budget = "20m"
effort = "none"
[arm.tuned]
weights = "lora"
context = "rag"
epochs = 1
passages = 1
"""


def test_a_study_with_passages_goes_through(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    rows = []
    for town, facts in TOWNS.items():
        pairs = list(zip(facts[::2], facts[1::2], strict=True))
        text = "\n".join(f"The {what} of {town}: {value}." for what, value in pairs)
        (tmp_path / "documents" / f"{town.lower()}.md").write_text(f"# {town}\n{text}\n")
        for what, value in pairs:
            for way in ("Tell me the {} of {}.", "I am new here: for {1}, what is its {0}?"):
                rows.append(
                    {
                        "question": way.format(what, town),
                        "answer": value,
                        "fact": f"{town} {what}",
                        "passage": f"{town.lower()}.md",
                    }
                )
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "trimtab.toml").write_text(TASK.replace("[base]", 'leakage = "report"\n[base]'))
    result = study(tmp_path, listeners=[])
    assert [(arm.status, arm.why) for arm in result.arms] == [("done", None)] * 3
    prompt, rag, tuned = result.arms
    assert prompt.score is not None
    assert rag.score is not None
    assert tuned.score is not None
    assert min(rag.score.value, tuned.score.value) > prompt.score.value  # nobody knows these towns
    for arm in result.arms:
        assert arm.peak_memory_mb is not None
        assert 300 < arm.peak_memory_mb < 6000
        assert arm.latency_p50_ms is not None
        assert arm.latency_p50_ms > 0
        assert min(arm.extras["prefill_seconds"], arm.extras["decode_seconds"]) > 0
        assert arm.extras["same_alone"] > 0.5
    for arm in (rag, tuned):
        assert 0 < arm.extras["mrr"] <= 1
        assert "lost_to_retrieval" in arm.extras
    assert "lost_to_retrieval" not in prompt.extras
    folder = tmp_path / ".trimtab" / "studies" / result.study
    assert "tuned" in (folder / "report.html").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["hashes"]) == {"data", "documents", "base", "embedding", "task", "plan"}
    assert manifest["counts"]["documents"] == 4
    assert (folder / "arms" / "tuned" / "run-0" / "adapter" / "adapter_model.safetensors").is_file()
