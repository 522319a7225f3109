"""Access logs: which assistants' agents came, what they got, and what they never read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.base.surface import Finding, LogSummary, Site


def read_logs(
    paths: Sequence[Path], ranges: Path | None = None, site: Site | None = None
) -> tuple[LogSummary, tuple[Finding, ...]]:
    """What the agents of assistants did, by access logs in the combined format or as CDNs export them.

    `ranges`: a file or a folder of the address ranges that vendors publish (JSON), by which a visitor is verified. `site`: where given,
    the pages that no agent has read are told. Raises InputError for a log that cannot be read.
    """
    raise NotImplementedError
