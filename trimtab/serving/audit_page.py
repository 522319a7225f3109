"""The page of `trimtab audit --page`: one answer at a time, right or wrong; on this machine alone, with nothing but the standard library."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

from trimtab.base.visible import visible
from trimtab.measurement.audit import AuditItem
from trimtab.studies.audit import StudyAudit

MOST_BODY = 1_000  # bytes of a judgement
SECONDS = 10.0  # that a client has for a request: one at a time is served
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
dt { font-size: .85rem; opacity: .7; margin-top: 1rem } dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
form { margin-top: 2rem } button { font: inherit; padding: .6rem 1.4rem; margin-right: .6rem }
"""
_BUTTONS = (("right", "Right"), ("wrong", "Wrong"), ("skip", "Skip"), ("stop", "Stop here"))


class AuditPage:
    """An audit as a page at `address`, which holds a secret; `serve` answers until all is judged or "Stop here" is pressed."""

    def __init__(self, session: StudyAudit) -> None:
        self._session, self._place, self._stopped = session, 0, False
        self._path = f"/{secrets.token_urlsafe(16)}"
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS

            def do_GET(self) -> None:
                page._answer(self, posted=False)

            def do_POST(self) -> None:
                page._answer(self, posted=True)

            def log_message(self, format: str, *args: object) -> None:
                """Write nothing: the secret would stand in it."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}{self._path}"

    def serve(self, say: Callable[[str], None]) -> None:
        """Tell the address and answer until the end."""
        say(f"judge {len(self._session.pending)} answers at {self.address}")
        with self._server:
            while not self._stopped and self._asked is not None:
                self._server.handle_request()

    @property
    def _asked(self) -> AuditItem | None:
        pending = self._session.pending
        return pending[self._place] if self._place < len(pending) else None

    def _answer(self, request: BaseHTTPRequestHandler, *, posted: bool) -> None:
        # another host is a name that somebody pointed at this machine
        own = request.headers.get("Host") == f"127.0.0.1:{self._server.server_port}"
        if not own or not secrets.compare_digest(request.path.encode(), self._path.encode()):
            request.send_error(404)
            return
        if posted:
            length = request.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length) > MOST_BODY:
                request.send_error(413)
                return
            self._take(parse_qs(request.rfile.read(int(length)).decode("utf-8", "replace")))
        body = self._html().encode()
        request.send_response(200)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def _take(self, form: dict[str, list[str]]) -> None:
        """Keep a judgement of the answer that is shown; one of another, as after going back, changes nothing."""
        asked, said = self._asked, form.get("said", [""])[0]
        if asked is None or form.get("place") != [str(self._place)]:
            return
        if said in ("right", "wrong"):
            self._session.judge(asked, said == "right")
        self._stopped = said == "stop"
        self._place += said in ("right", "wrong", "skip")

    def _html(self) -> str:
        asked = self._asked
        if asked is None or self._stopped:
            inside = "<p>Thank you. This page is closed; the terminal shows what came of it.</p>"
        else:
            parts = (("Question", asked.question), ("Reference", "\n".join(asked.references)), ("Answer", asked.answer))
            told = "".join(f"<dt>{name}</dt><dd>{escape(visible(text))}</dd>" for name, text in parts)
            buttons = "".join(f'<button name="said" value="{value}">{name}</button>' for value, name in _BUTTONS)
            place = f'<input type="hidden" name="place" value="{self._place}">'
            count = f"{self._place + 1} of {len(self._session.pending)}"
            inside = f'<p>{count}: is the answer right?</p><dl>{told}</dl><form method="post">{place}{buttons}</form>'
        return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit</title><style>{_STYLE}</style>{inside}</html>'
