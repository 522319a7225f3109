"""A local folder as a web server would serve it: addresses, media types, `_headers`, robots.txt and sitemaps."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import quote, unquote

from trimtab.base.errors import InputError
from trimtab.base.sanitize import printable
from trimtab.data.sources import files_below
from trimtab.publishing.addresses import canonical_address, origin_of, path_of
from trimtab.publishing.page_links import PAGE_TYPES, OddPageError, links_of
from trimtab.publishing.records import Fetched, Site, SitemapEntry, Unfetched
from trimtab.publishing.sitemaps import MOST_BYTES, read_sitemap

NO_ADDRESS = "http://localhost/"  # of a folder whose address nobody gave and no sitemap names
_TYPES: Mapping[str, str] = {  # what Python's table lacks, or takes from the system
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".xml": "application/xml",
    ".json": "application/json",
}
_NOT_PAGES = ("robots.txt", "_headers", "_redirects", "404.html", "CNAME")
_SITEMAP = re.compile(r"sitemap[\w.-]*\.(xml|xml\.gz|txt)", re.ASCII | re.IGNORECASE)


def read_folder(folder: Path, *, pages: int, page_cap: int, base: str | None = None) -> Site:
    """Read every page of a folder as it would be served below `base`; linked files that are not there are pages with
    status 404.

    Without `base` the addresses are those that the folder's sitemap has. At most `pages` pages, each of at most
    `page_cap` bytes; links out of the folder are not followed. Raises InputError where the folder holds no page.
    """
    root = folder.resolve()
    files = {path.relative_to(folder).as_posix(): path for path in files_below(folder) if _inside(path, root)}
    where = canonical_address(base) if base else _address_of(files) or NO_ADDRESS
    if where is None:
        raise InputError(
            f"{printable(base or '')} is no http or https address", "give one, such as https://example.com/"
        )
    where = where if where.endswith("/") else f"{where}/"
    rules = _header_rules(files.get("_headers"))

    def served(name: str, status: int = 200, at: str | None = None) -> Fetched:
        url = where + quote(_served_name(name)) if at is None else at
        url = canonical_address(url) or url
        return _fetched(files[name], url, status, page_cap, rules, path_of(where))

    names = [name for name in files if name not in _NOT_PAGES and not _SITEMAP.fullmatch(name)]
    read = [name for name in names if _media_type(name) in PAGE_TYPES]
    if not read:
        raise InputError("holds no page", "give the folder that is served, with HTML files in it", file=folder)
    answers = [served(name) for name in read[:pages]]
    left_out = [Unfetched(url=where + quote(name), why=f"beyond {pages:,} pages") for name in read[pages:]]
    links = {}
    for page in answers:
        try:
            links[page.url], _ = links_of(page)
        except OddPageError as error:
            left_out.append(Unfetched(url=page.url, why=f"its links are not read: it {error}"))
    missing = _missing(links, files, where)
    not_there = [
        served("404.html", 404, address) if "404.html" in files else not_found(address)
        for address in missing[: max(0, pages - len(answers))]
    ]
    sitemaps = tuple(served(name) for name in files if _SITEMAP.fullmatch(name))
    entries: dict[str, SitemapEntry] = {}
    for answer in sitemaps:
        sitemap = read_sitemap(answer)
        if sitemap.problem:
            left_out.append(Unfetched(url=answer.url, why=f"a sitemap that {sitemap.problem}"))
        for entry in sitemap.entries:
            entries.setdefault(entry.url, entry)
    robots_url = f"{origin_of(where)}/robots.txt"
    return Site(
        origin=origin_of(where),
        source=str(folder),
        when=datetime.now(UTC),
        robots=served("robots.txt", at=robots_url) if "robots.txt" in files else not_found(robots_url),
        sitemaps=sitemaps,
        entries=tuple(entries.values()),
        pages=(*answers, *not_there),
        unfetched=tuple(left_out),
        links=links,
        llms=served("llms.txt") if "llms.txt" in files else None,
    )


def not_found(address: str) -> Fetched:
    """Return an empty answer with status 404."""
    return Fetched(url=address, asked=address, status=404, headers={}, content=b"", when=datetime.now(UTC))


def _inside(path: Path, root: Path) -> bool:
    """True for a regular file in the folder, its symbolic links followed."""
    return path.is_file() and path.resolve().is_relative_to(root)


def _served_name(name: str) -> str:
    return name[: -len("index.html")] if name == "index.html" or name.endswith("/index.html") else name


def _media_type(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def _fetched(
    path: Path, url: str, status: int, cap: int, rules: Mapping[str, Mapping[str, str]], below: str
) -> Fetched:
    with open(path, "rb") as file:
        content = file.read(cap + 1)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    headers = {"content-type": _media_type(path.name), "last-modified": format_datetime(changed, usegmt=True)}
    place = "/" + path_of(url).removeprefix(below)
    for pattern, lines in rules.items():
        if re.fullmatch(pattern, place):
            headers |= lines
    return Fetched(
        url=url,
        asked=url,
        status=status,
        headers=headers,
        content=content[:cap],
        when=datetime.now(UTC),
        cut=len(content) > cap,
    )


def _header_rules(path: Path | None) -> dict[str, dict[str, str]]:
    """Read the file `_headers` of Netlify and Cloudflare Pages: headers by the pattern of their paths."""
    rules: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path else ():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] not in " \t":
            current = rules.setdefault(_path_pattern(line.strip()), {})
        elif current is not None and ":" in line:
            name, _, value = line.strip().partition(":")
            name = name.strip().lower()
            current[name] = f"{current[name]}, {value.strip()}" if name in current else value.strip()
    return rules


def _path_pattern(written: str) -> str:
    """Return a regular expression for a pattern such as `/blog/*` or `/:section/page`."""
    written = path_of(written) if "://" in written else written
    parts = re.split(r"(\*|:[A-Za-z]\w*)", written)
    return "".join(".*" if part == "*" else "[^/]+" if part.startswith(":") else re.escape(part) for part in parts)


def _address_of(files: Mapping[str, Path]) -> str | None:
    """Return what all addresses of a folder's sitemap begin with: that of its home page. None without a sitemap."""
    for name, path in files.items():
        if not _SITEMAP.fullmatch(name):
            continue
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES)
        at = Fetched(url=NO_ADDRESS, asked=NO_ADDRESS, status=200, headers={}, content=content, when=datetime.now(UTC))
        addresses = [entry.url for entry in read_sitemap(at).entries]
        if addresses:
            shared = min(addresses, key=len)
            shared = shared[: shared.rfind("/") + 1]
            return shared if all(address.startswith(shared) for address in addresses) else f"{origin_of(shared)}/"
    return None


def _missing(links: Mapping[str, tuple[str, ...]], files: Mapping[str, Path], where: str) -> list[str]:
    """Return the addresses below `where` that pages link to and at which nothing would be served."""
    linked = dict.fromkeys(address for found in links.values() for address in found if address.startswith(where))
    return [address for address in linked if not any(name in files for name in _names_for(address, where))]


def _names_for(address: str, where: str) -> Iterator[str]:
    """Yield the files that a static host would look for at an address, in its order."""
    name = unquote(address[len(where) :].partition("?")[0])
    if name.endswith("/") or not name:
        yield f"{name}index.html"
    else:
        yield from (name, f"{name}.html", f"{name}/index.html")
