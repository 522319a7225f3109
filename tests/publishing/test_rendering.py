"""Pages as Chromium shows them: scripts bring their text, and reach no host but the page's own."""

import math
import shutil
from collections.abc import Callable

import pytest
from site_server import Content, serving

from trimtab.publishing import rendering
from trimtab.publishing.pages import read_pages
from trimtab.publishing.records import Site
from trimtab.publishing.rendering import BROWSERS, with_rendered

pytest.importorskip("playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium is installed"),
]
BROUGHT = "The ferry leaves the northern quay at eight in the morning on every day of the week."


def test_scripts_bring_text_of_the_own_host_and_reach_no_other(
    crawled: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SETTLED", 2_000)
    with serving({"/secret": "inside", "/direct": "inside"}) as (other, neighbour):
        home = """<html><head><title>Ferry</title><script src="/brings.js"></script></head><body><main id="m"></main>
            <iframe src="/frame"></iframe></body></html>"""
        frame = f"""<html><body><script>
            fetch("/leads").catch(() => 0); fetch("{other}/direct").catch(() => 0);
            new WebSocket("{other.replace("http", "ws")}/socket"); new Image().src = "{other}/image";
            </script></body></html>"""
        script = (
            b'fetch("/text").then(one => one.text()).then(text => document.getElementById("m").innerHTML = '
            b"`<p>${text}</p>`)"
        )
        pages: dict[str, Content] = {
            "/": home,
            "/frame": frame,
            "/brings.js": (200, {"Content-Type": "text/javascript"}, script),
            "/text": BROUGHT,
            "/leads": (302, {"Location": f"{other}/secret"}, b""),
        }
        with serving(pages) as (origin, server):
            site = crawled(origin, rate=math.inf)
            server.asked.clear()
            (page,) = with_rendered(site, read_pages(site.pages), most=1)
            asked = {path for path, _ in server.asked}
        assert page.rendered is not None
        assert BROUGHT in page.rendered
        assert {"/brings.js", "/text", "/leads"} <= asked
        assert neighbour.asked == []
