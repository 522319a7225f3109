"""Crawls a site politely, or reads a local folder as it would be served."""

from __future__ import annotations

from pathlib import Path

from trimtab.base.errors import InputError, MissingError
from trimtab.base.progress import Progress
from trimtab.base.surface import Site
from trimtab.base.visible import printable
from trimtab.publishing.folder import read_folder

PAGE_CAP = 16 * 1024 * 1024  # bytes of one page that are read


def crawl(
    source: str,
    *,
    cache: Path,
    pages: int = 10_000,
    depth: int = 20,
    rate: float = 5.0,
    base: str | None = None,
    progress: Progress | None = None,
    render: bool = False,
) -> Site:
    """Fetch the pages of one host, or read those of a folder as it would be served.

    `source` is an http or https address, or a folder; `base` the address below which the folder's pages go. At most `pages` pages, `depth`
    links from the first page on, at `rate` requests a second (infinite: as fast as they come). Answers are kept in `cache`: a crawl
    that was stopped goes on there, a later one asks only for what has changed. Raises InputError for a source that is neither,
    RemoteError where its first page cannot be reached.
    """
    if "://" not in source:
        folder = Path(source)
        if not folder.exists():
            raise MissingError(f"{printable(source)} is no folder; give one, or an address that begins with https://")
        if not folder.is_dir():
            raise InputError("is no folder", "give the folder that holds it", file=folder)
        return read_folder(folder, pages=pages, page_cap=PAGE_CAP, base=base)
    raise NotImplementedError
