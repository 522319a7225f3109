"""The page of a story: its steps in order, and nothing of what commands print is obeyed by a browser."""

from __future__ import annotations

from trimtab.upkeep.story import render_story


def test_steps_stand_in_order_and_what_they_print_is_text() -> None:
    page = render_story(
        "A story",
        "It ended well.",
        [("First", "trimtab study", "arm <b>lora</b>", 12.4), ("Then", "", "<script>alert(1)</script>", 0.2)],
    )
    assert page.index("1. First") < page.index("$ trimtab study") < page.index("2. Then")
    assert "12 s" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "arm &lt;b&gt;lora" in page
