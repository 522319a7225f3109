"""The audit: its findings on the example with known faults, its JSON read back, what changes between two, its page."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_pages import article, site
from typer.testing import CliRunner

import trimtab.publishing
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError
from trimtab.base.files import write_own
from trimtab.cli.main import app
from trimtab.publishing.audit import changes, surface_audit
from trimtab.publishing.check_table import CHECKS
from trimtab.publishing.checks import language_of, missing_share
from trimtab.publishing.records import SurfaceAudit, read_result
from trimtab.publishing.structured_data import disagreeing

EXAMPLE = Path(trimtab.publishing.__file__).parent / "example"
TRUTH = json.loads((EXAMPLE / "truth.json").read_text(encoding="utf-8"))
OWN = {check.name for check in CHECKS}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> SurfaceAudit:
    """The audit of the example."""
    return surface_audit(EXAMPLE / "site", base=f"{TRUTH['origin']}/", cache=tmp_path_factory.mktemp("cache"))


def test_the_script_writes_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(EXAMPLE / "make.py"), str(tmp_path)], check=True, timeout=300)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {name: (EXAMPLE / name).read_bytes() for name in written}
    assert written == kept
    assert {path.relative_to(EXAMPLE) for path in (EXAMPLE / "site").rglob("*") if path.is_file()} <= set(written)


def test_no_finding_on_the_example_is_wrong_and_all_but_one_fault_are_found(audit: SurfaceAudit) -> None:
    told = {(one.check, one.page.removeprefix(TRUTH["origin"])) for one in audit.findings if one.check in OWN}
    planted = [(one["check"], place) for one in TRUTH["faults"] for place in one["pages"]]
    assert told <= set(planted)
    missed = [one for one in TRUTH["faults"] if not any((one["check"], place) in told for place in one["pages"])]
    assert [one["check"] for one in missed] == ["contradiction"]  # stated in other words


def test_every_finding_has_evidence_and_says_what_to_do(audit: SurfaceAudit) -> None:
    for one in audit.findings:
        assert one.evidence
        assert one.remedy


def test_an_audit_is_read_back_from_its_json_and_nothing_has_changed(audit: SurfaceAudit, tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    write_record(file, audit)
    found = changes(read_result(SurfaceAudit, file), audit)
    assert (found.new, found.gone, found.agents) == ((), (), ())


def test_what_was_mended_is_gone_and_what_came_is_new(audit: SurfaceAudit) -> None:
    first, *rest = audit.findings
    added = replace(first, evidence="another")
    found = changes(audit, replace(audit, findings=(*rest, added)))
    assert (found.gone, found.new) == ((first,), (added,))


def test_what_is_no_audit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    write_own(file, {"pages": 3})
    with pytest.raises(InputError, match="is no result of `trimtab surface audit --json`"):
        read_result(SurfaceAudit, file)


def test_the_command_exits_1_where_something_blocks_and_0_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "site" / "docs", tmp_path / "site" / "docs")
    (tmp_path / "site" / "index.html").write_text(
        article("<h1>A</h1><a href='docs/harbour-chart.pdf'>chart</a>"), encoding="utf-8"
    )
    command = [
        "surface",
        "audit",
        str(tmp_path / "site"),
        "--base",
        "https://made.example",
        "--cache",
        str(tmp_path / "c"),
        "--json",
    ]
    page = tmp_path / "audit.html"
    blocked = CliRunner().invoke(app, [*command, "--page", str(page)])
    assert blocked.exit_code == 1
    assert any(one["check"] == "pdf-without-text" for one in json.loads(blocked.stdout)["findings"])
    assert "docs/harbour-chart.pdf" in page.read_text(encoding="utf-8")
    (tmp_path / "site" / "docs" / "harbour-chart.pdf").unlink()
    assert CliRunner().invoke(app, command).exit_code == 0


def test_text_of_a_site_cannot_put_elements_into_the_page(tmp_path: Path) -> None:
    site(tmp_path / "site", {"/": article("<h1>A</h1><h1>&lt;img src=x onerror=alert(1)&gt;</h1>")})
    page = tmp_path / "audit.html"
    surface_audit(tmp_path / "site", page=page, cache=tmp_path / "c")
    text = page.read_text(encoding="utf-8")
    assert "&lt;img src=x" in text
    assert "<img" not in text


def test_a_price_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    head = '<script type="application/ld+json">{"@type": "Offer", "price": "1299.00", "priceCurrency": "EUR"}</script>'
    for shown, agrees in (("1.299,00 €", True), ("1,299 euros", True), ("EUR 1299", True), ("1199 euros", False)):
        pages = site(tmp_path / shown.split()[0], {"/": article(f"<h1>Boat</h1><p>It costs {shown}.</p>", head=head)})
        assert bool(list(disagreeing(pages))) != agrees


def test_the_share_that_scripts_bring_counts_words(tmp_path: Path) -> None:
    (read,) = site(tmp_path, {"/": article("<h1>One two</h1><p>three four</p>")}).read
    assert missing_share(read) is None
    assert missing_share(replace(read, rendered="one two three four")) == 0
    assert missing_share(replace(read, rendered="one two three four five six seven eight")) == 0.5


def test_a_language_is_told_by_its_function_words_and_short_texts_are_left_open() -> None:
    german = (
        "Der Hafen ist für alle Boote offen und die Karten werden in dem kleinen Büro neben dem Kran verkauft. " * 5
    )
    assert language_of(german) == "de"
    assert language_of("Der Hafen ist offen") is None
