"""Writes the site of this example, and the ground truth of its faults, from `source/pages.md`.

Run `python make.py` to rewrite the files beside this script, or `python make.py FOLDER` to write them elsewhere.
"""

import json
import re
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

HERE = Path(__file__).resolve().parent
ORIGIN = "https://saltmere.example"
HUBS = {
    "/ferries/": "Ferries",
    "/harbours/": "Harbours",
    "/wildlife/": "Wildlife",
    "/tickets/": "Tickets",
    "/museum/": "Museum",
    "/visit/": "Visit",
    "/news/": "News",
    "/about/": "About",
}
TYPES = {"article": "Article", "news": "NewsArticle"}
MAP_WORDS = (
    "The islands lie in a row from north to south. Orrin is the largest and nearest, with the quay on its eastern side. Greyling is "
    "the steep one, with a chapel on the ridge and the signal station above the western cliff. Fenwick Holm is low and round; its "
    "landing place moves with the shingle, and wardens mark it with two oars. Tarn Point is no island at low tide."
)
NEAR = {"by worm": "by shipworm", "usual": "always"}
"""Words that the nearly equal copy of a page replaces."""
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


@dataclass(frozen=True)
class PageSource:
    """The source of a page: its path, its settings, its text in Markdown."""

    path: str
    settings: Mapping[str, str]
    text: str

    def get(self, key: str) -> str:
        """Return a setting, empty if it is not given."""
        return self.settings.get(key, "")

    @property
    def faults(self) -> list[str]:
        """The checks that should find a fault on this page."""
        return [one.strip() for one in self.get("faults").split(",") if one.strip()]


def read(file: Path) -> dict[str, PageSource]:
    """Return the pages of the source by their paths."""
    pages = {}
    for block in re.split(r"(?m)^=== ", file.read_text(encoding="utf-8"))[1:]:
        head, _, text = block.partition("\n\n")
        path, *lines = head.strip().split("\n")
        settings = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        pages[path] = PageSource(path, settings, text.strip())
    return pages


def in_words(day: str) -> str:
    """Return a date as the site shows it: 3 March 2026."""
    when = date.fromisoformat(day)
    return f"{when.day} {when:%B} {when.year}"


def html(page: PageSource, pages: Mapping[str, PageSource]) -> str:
    """Return the HTML of a page."""
    text = page.text
    if page.get("copy"):
        text = pages[page.get("copy")].text
    if page.get("near"):
        text = pages[page.get("near")].text
        for word, other in NEAR.items():
            text = text.replace(word, other, 1)
    lang = page.get("lang") or "en"
    body = f'<div id="map">{text}</div>' if page.get("script") else MARKDOWN.render(text)
    lines = [
        "<!doctype html>",
        "<html>" if lang == "none" else f'<html lang="{lang}">',
        "<head>",
        '<meta charset="utf-8">',
        f"<title>{escape(page.get('title'))}</title>",
        *canonicals(page),
        *([f'<meta name="robots" content="{page.get("robots")}">'] if page.get("robots") else []),
        *([f'<script type="application/ld+json">{found}</script>'] if (found := json_ld(page, text)) else []),
        "</head>",
        "<body>",
        "<header><nav>",
        *(f'<a href="{path}">{name}</a>' for path, name in {"/": "Saltmere Harbour Trust", **HUBS}.items()),
        "</nav></header>",
        *aside(page),
        "<main><article>",
        body.rstrip(),
        *byline(page),
        *also(page, pages),
        "</article></main>",
        "<footer><p>Saltmere Harbour Trust, North Quay, Saltmere. A charity of the sound.</p></footer>",
        *([f'<script src="/js/{page.get("script")}.js"></script>'] if page.get("script") else []),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def canonicals(page: PageSource) -> Iterator[str]:
    """Yield the link elements with a canonical address."""
    given = page.get("canonical") or page.path
    for path in given.split(","):
        if path.strip() != "none":
            yield f'<link rel="canonical" href="{ORIGIN}{path.strip()}">'


def json_ld(page: PageSource, text: str) -> str:
    """Return the JSON-LD of a page: its own, or an article's."""
    kind = TYPES.get(page.get("kind"))
    if page.get("jsonld") or kind is None:
        return page.get("jsonld")
    heading = re.search(r"(?m)^# (.*)", text)
    item: dict[str, object] = {"@context": "https://schema.org", "@type": kind}
    item["headline"] = heading[1] if heading else page.get("title")
    if page.get("published"):
        item["datePublished"] = page.get("published")
    item["dateModified"] = page.get("updated")
    item["author"] = {"@type": "Person", "name": page.get("jsonld-author") or page.get("author")}
    return json.dumps(item)


def byline(page: PageSource) -> Iterator[str]:
    """Yield the author and the dates, as readers see them."""
    parts = []
    if page.get("author") != "none":
        parts.append(f"By {page.get('author')}.")
    if page.get("dates") != "none":
        parts += [f"Published {in_words(page.get('published'))}."] if page.get("published") else []
        parts.append(f"Updated {in_words(page.get('visible') or page.get('updated'))}.")
    if parts:
        yield f'<p class="signed">{" ".join(parts)}</p>'


def also(page: PageSource, pages: Mapping[str, PageSource]) -> Iterator[str]:
    """Yield the links at the end of a page: of a section its pages, of every page those that it names."""
    links = [path.strip() for path in page.get("links").split(",") if path.strip()]
    if page.path in HUBS:
        below = (other for other in pages.values() if other.path != page.path and other.path.startswith(page.path))
        links += [other.path for other in below if not other.get("orphan") and other.path not in links]
    if links:
        yield '<nav aria-label="See also"><ul>'
        for path in links:
            name = pages[path].get("title") if path in pages else path.strip("/").rpartition("/")[2].replace("-", " ")
            yield f'<li><a href="{path}">{escape(name)}</a></li>'
        yield "</ul></nav>"


def aside(page: PageSource) -> Iterator[str]:
    """Yield a long list of links beside the text."""
    if page.get("aside"):
        yield "<aside><ul>"
        for number in range(int(page.get("aside"))):
            yield f'<li><a href="https://neighbour-{number}.example/">Harbour and island number {number + 1}</a></li>'
        yield "</ul></aside>"


def sitemap(pages: Sequence[PageSource]) -> str:
    """Return the sitemap: every page that is meant to be found, and the entries that the ground truth calls wrong."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">']
    for page in pages:
        canonical = (page.get("canonical") or page.path).split(",")[0].strip()
        if page.get("sitemap") == "no" or canonical not in (page.path, "none"):
            continue
        day = page.get("lastmod") or page.get("updated")
        changed = "" if day == "none" else f"<lastmod>{day}</lastmod>"
        lines.append(f"<url><loc>{ORIGIN}{page.path}</loc>{changed}</url>")
    lines.append(f"<url><loc>{ORIGIN}/ferries/hydrofoil/</loc><lastmod>2026-01-01</lastmod></url>")
    return "\n".join([*lines, "</urlset>"]) + "\n"


def pdf(lines: Sequence[str]) -> bytes:
    """Return a PDF of one page: lines of text, or without any a grey picture."""
    if lines:
        drawn = "BT /F1 11 Tf 60 780 Td 15 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    else:
        drawn = "q 480 0 0 700 60 70 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"
    content = drawn.encode("latin-1")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


def grey_png() -> bytes:
    """Return a grey picture of one pixel, which stands for all of the site's pictures."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (1).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")


def truth(pages: Mapping[str, PageSource]) -> Iterator[dict[str, object]]:
    """Yield every fault: the check that should find it, and the pages on which it may be reported."""
    for page in pages.values():
        for fault in page.faults:
            on = [page.path]
            if fault == "contradiction":
                on.append(page.get("contradicts"))
            if fault in ("duplicate", "near-duplicate"):
                on.append(page.get("copy") or page.get("near"))
            yield {"check": fault, "pages": on}
    for check in ("sitemap-wrong", "sitemap-undated"):
        yield {"check": check, "pages": ["/sitemap.xml"]}
    yield {"check": "pdf-without-text", "pages": ["/docs/harbour-chart.pdf"]}


def main(folder: Path) -> None:
    """Write the site and the truth."""
    pages = read(HERE / "source" / "pages.md")
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    for page in pages.values():
        place = site / page.path.strip("/") / "index.html"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(html(page, pages), encoding="utf-8", newline="\n")
    for name, content in {
        "sitemap.xml": sitemap([*pages.values()]).encode(),
        "robots.txt": b"User-agent: *\nAllow: /\n\nUser-agent: GPTBot\nDisallow: /museum/\n\nSitemap: https://saltmere.example/sitemap.xml\n",
        "llms.txt": b"# Saltmere Harbour Trust\n\nFerries, harbours, a seal reserve and a museum.\n\n- [Ferries](https://saltmere.example/ferries/)\n",
        "_headers": "".join(
            f"{page.path}\n  Last-Modified: {page.get('header-date')}\n"
            for page in pages.values()
            if page.get("header-date")
        ).encode(),
        "js/map.js": f'document.getElementById("map").innerHTML = "<h1>Map</h1><p>{MAP_WORDS}</p>";\n'.encode(),
        "docs/tide-tables.pdf": pdf(
            ["Tide tables of Saltmere", "High water on 1 July 2026: 05:12 and 17:40", "Add an hour at Tarn Point."]
        ),
        "docs/harbour-chart.pdf": pdf([]),
        "img/eider-house.jpg": grey_png(),
        "img/opening-hours-winter.png": grey_png(),
        "img/scan-0412.jpg": grey_png(),
    }.items():
        place = site / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    told = json.dumps({"origin": ORIGIN, "faults": list(truth(pages))}, indent=1)
    (folder / "truth.json").write_text(f"{told}\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
