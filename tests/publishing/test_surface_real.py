"""`trimtab demo surface` with the real embedding model: both pages, and the questions of visitors found on the site."""

from __future__ import annotations

from pathlib import Path

from trimtab.publishing.demo import demo_surface


def test_the_bundled_site_is_audited_and_asked(tmp_path: Path) -> None:
    found = demo_surface(tmp_path / "demo")
    assert found.audit.blocks
    assert found.audit.pages > 60
    status = {one.question: one.status for one in found.coverage.questions}
    assert status["How long does the crossing to Orrin take?"] == "answered"
    assert sum(one == "answered" for one in status.values()) >= 10
    for name in ("audit.html", "coverage.html"):
        assert (tmp_path / "demo" / name).read_text(encoding="utf-8").startswith("<!")
    again = demo_surface(tmp_path / "demo")
    assert again.audit.findings == found.audit.findings
