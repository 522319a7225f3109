"""The command `trimtab export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trimtab.base.errors import EXIT_NO
from trimtab.cli.options import (
    DEFAULT_TASK,
    AllowOption,
    JsonOption,
    RunOption,
    TaskOption,
    existing_task,
    optional_arm,
)
from trimtab.cli.output import Output


class ExportFormat(StrEnum):
    """The formats that an arm can be exported to."""

    peft = "peft"
    merged = "merged"
    gguf = "gguf"
    bundle = "bundle"


def command(
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help=(
                "peft: the adapter; merged: a model of transformers; gguf: for llama.cpp and Ollama; bundle: the "
                "whole arm, for serve and ask."
            ),
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new or empty folder.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH] [ARM]",
            help=(
                "A task file or its folder, by default the one here; the arm, by default the winner of the "
                "newest study."
            ),
        ),
    ] = None,
    task_file: TaskOption = DEFAULT_TASK,
    quantize: Annotated[
        str | None,
        typer.Option(
            "--quantize", metavar="TYPE", help="For gguf: f32, f16 (default), bf16, q8_0, q5_1, q5_0, q4_1 or q4_0."
        ),
    ] = None,
    run: RunOption = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            "--sign", metavar="KEY", help="A private key (PEM) that signs every file, by OpenSSF model-signing."
        ),
    ] = None,
    questions: Annotated[
        int,
        typer.Option(
            "--questions", min=1, metavar="N", help="Most test questions that are asked of the exported model."
        ),
    ] = 100,
    allow: AllowOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export an arm to files for other software, and verify that they answer like the measured arm.

    Up to 100 test questions are asked of the exported model, through PEFT, transformers or llama.cpp, for five
    minutes each; fewer with --questions. Exits 1 if a loss of score is shown. The folder gets a model card
    (README.md) and the figures of the verification (proof.json).

    \b
    Example:
      trimtab export --format merged --out model
      trimtab export tickets/ lora --format gguf --quantize q8_0 --out model-q8
      trimtab export --format bundle --out winner --sign key.pem
    """
    with Output(as_json) as output:
        source, arm = optional_arm(words or ())
        task = existing_task(task_file, source)
        from trimtab.studies.export import export

        result = export(
            task,
            arm,
            format=format.value,
            out=out,
            quantize=quantize,
            run=run,
            sign=sign,
            questions=questions,
            allow=allow or (),
        )
        output.exported(result)
    if result.failed:
        raise typer.Exit(EXIT_NO)
