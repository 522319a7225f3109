"""Runs Evidently's defaults on windows and their references; prints one JSON line. Run by `drift_alarms.py --peer`.

Three rules: its drift of embeddings (the AUC of a classifier), its preset's verdict on the data set (half of the
columns drifted), and any column of that preset.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import evidently
import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
from evidently.legacy.metric_preset import DataDriftPreset  # noqa: E402
from evidently.legacy.metrics import EmbeddingsDriftMetric  # noqa: E402
from evidently.legacy.pipeline.column_mapping import ColumnMapping  # noqa: E402
from evidently.legacy.report import Report  # noqa: E402


def main(file: Path) -> None:
    found = np.load(file)
    vectors = [f"v{place}" for place in range(found["vectors"].shape[1])]
    embedded = pd.DataFrame(found["vectors"], columns=vectors)
    columns = pd.DataFrame({name.removeprefix("number "): found[name] for name in found if name.startswith("number ")})
    if "labels" in found:
        columns["labels"] = found["labels"]
    mapping = ColumnMapping(embeddings={"questions": vectors})
    told: dict[str, list[bool]] = {"embeddings": [], "dataset": [], "any_column": []}
    for reference, window in zip(found["references"], found["windows"], strict=True):
        report = Report(metrics=[EmbeddingsDriftMetric("questions")])
        report.run(reference_data=embedded.iloc[reference], current_data=embedded.iloc[window], column_mapping=mapping)
        told["embeddings"].append(bool(report.as_dict()["metrics"][0]["result"]["drift_detected"]))
        preset = Report(metrics=[DataDriftPreset()])
        preset.run(reference_data=columns.iloc[reference], current_data=columns.iloc[window])
        result = preset.as_dict()["metrics"][0]["result"]
        told["dataset"].append(bool(result["dataset_drift"]))
        told["any_column"].append(result["number_of_drifted_columns"] > 0)
    shares = {name: float(np.mean(values)) for name, values in told.items()}
    print(json.dumps({"version": evidently.__version__, **shares}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
