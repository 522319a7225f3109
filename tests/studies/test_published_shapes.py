"""PubMedQA and CLINC150 in the shapes they are published in: init, check and study, with no edit but the
instruction."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from published import of_clinc, of_pubmed

from trimtab.studies.check import check
from trimtab.studies.init import init
from trimtab.studies.study import study


@pytest.mark.parametrize(
    ("rows", "sizes", "seen"),
    [
        (
            of_pubmed(40),
            None,
            r"Ward (\d+) was treated for \d+ weeks\.\nOf \d+ patients \1 were better\.\n\nDoes treatment \1 help",
        ),
        (of_clinc(), {"train": 16, "dev": 7, "test": 9}, r"(oos )?train saying \d+"),
    ],
    ids=["pubmed", "clinc"],
)
def test_init_check_and_study(
    tmp_path: Path, tiny_model_folder: Path, tiny_embedding_folder: Path, rows: Any, sizes: Any, seen: str
) -> None:
    (tmp_path / "data.json").write_text(json.dumps(rows))
    text = re.sub(r"instruction = .*", 'instruction = "Which?"', init(tmp_path))
    for name, value in (
        ("model", tiny_model_folder),
        ("embedding", tiny_embedding_folder),
        ("arms", ["linear", "prompt"]),
    ):
        text = re.sub(rf"^(# )?{name} = .*", f"{name} = {json.dumps(value, default=str)}", text, flags=re.M)
    (tmp_path / "trimtab.toml").write_text(text)
    checked = check(tmp_path, listeners=[])
    assert [remark.text for remark in checked.remarks if remark.level == "stop"] == []
    assert re.search(seen, "".join(piece.text for piece in checked.example))
    assert sizes is None or checked.splits == sizes
    result = study(tmp_path, listeners=[])
    assert [(arm.arm, arm.status, arm.why) for arm in result.arms] == [
        ("linear", "done", None),
        ("prompt", "done", None),
    ]
    assert {arm.score.n for arm in result.arms if arm.score} == {checked.splits["test"]}
