"""The web page of `trimtab audit --page`, `trimtab label --page` and `trimtab questions --page`: shows one answer at a
time, to be judged.

It listens on this machine only, and needs nothing but the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable, Sequence
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

from trimtab.base.sanitize import visible
from trimtab.measurement.judging_session import (
    Correct,
    JudgementChoice,
    Judgements,
    Judging,
    JudgingForm,
    Outlook,
)

MOST_BODY = 1_000  # bytes of a posted form, without the correction
MOST_CORRECTION = 100_000  # bytes of a correction, as a form encodes it
SECONDS = 10.0  # timeout of a request; requests are served one at a time
_STYLE = """
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
dt { font-size: .85rem; opacity: .7; margin-top: 1rem } dd { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere }
form { margin-top: 2rem } button { font: inherit; padding: .6rem 1.1rem; margin: 0 .6rem .6rem 0 }
textarea { font: inherit; display: block; box-sizing: border-box; width: 100%; margin-bottom: 1rem } kbd { opacity: .6 }
aside { font-size: .85rem; opacity: .7; margin-top: 2rem }
"""
_SCRIPT = """
addEventListener("keydown", (event) => {
  if (event.target.tagName === "TEXTAREA") {
    if (event.key === "Escape") event.target.blur();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector("[data-sends]").click();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const found = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!found) return;
  event.preventDefault();
  found.click();
});
document.querySelector("[data-sends]")?.addEventListener("click", (event) => {
  const note = document.querySelector("textarea");
  if (note.value.trim()) return;
  event.preventDefault();
  note.value = note.dataset.draft;
  note.focus();
});
"""
_FIELD = """<label>{text}, where it is wrong (Esc leaves the field, Ctrl+Enter sends it)
<textarea name="correction" rows="3" data-draft="{draft}"></textarea></label>"""
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class AuditPage:
    """A local web page for judging answers; its `address` holds a secret token. `notes` stand below the answer.

    `serve` returns once all answers are judged or "Stop here" is pressed.
    """

    def __init__(
        self,
        session: Judgements,
        correct: Correct | None = None,
        outlook: Outlook | None = None,
        notes: Sequence[str] = (),
        form: JudgingForm | None = None,
    ) -> None:
        self._notes = "".join(f"<p>{escape(visible(note))}</p>" for note in notes)
        self._judging, self._accepts_corrections = Judging(session, correct, outlook, form), correct is not None
        self._max_bytes = MOST_BODY + MOST_CORRECTION * self._accepts_corrections
        self._path = f"/{secrets.token_urlsafe(16)}"
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS
            disable_nagle_algorithm = True  # a reply is sent in two parts

            def do_GET(self) -> None:
                page._answer(self, posted=False)

            def do_POST(self) -> None:
                page._answer(self, posted=True)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing, as the path holds the secret token."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}{self._path}"

    def serve(self, report: Callable[[str], None]) -> None:
        """Report the address, and serve the page until the end."""
        what = f"{self._judging.form.what}{'s' * (self._judging.count != 1)}"
        report(f"judge {self._judging.count:,} {what} at {self.address}")
        with self._server:
            while self._judging.asked is not None:
                self._server.handle_request()

    def _answer(self, request: BaseHTTPRequestHandler, *, posted: bool) -> None:
        # another Host header: a foreign name was pointed at this machine (DNS rebinding)
        is_own_host = request.headers.get("Host") == f"127.0.0.1:{self._server.server_port}"
        if not is_own_host or not secrets.compare_digest(request.path.encode(), self._path.encode()):
            request.send_error(404)
            return
        if posted:
            length = request.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or int(length) > self._max_bytes:
                request.send_error(413)
                return
            self._record(parse_qs(request.rfile.read(int(length)).decode("utf-8", "replace")))
        body = self._html().encode()
        request.send_response(200)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def _record(self, form: dict[str, list[str]]) -> None:
        """Record a judgement of the answer that is shown; one of another answer, sent after going back, is ignored."""
        if form.get("place") == [str(self._judging.place)]:
            correction = form.get("correction", [""])[0].replace("\r\n", "\n")  # as forms send lines
            self._judging.take(form.get("said", [""])[0], correction)

    def _html(self) -> str:
        judging, asked = self._judging, self._judging.asked
        if asked is None:
            content = "<p>Thank you. This page is closed; the terminal shows what came of it.</p>"
        else:
            parts = "".join(
                f"<dt>{name}</dt><dd>{escape(visible(chr(10).join(texts)))}</dd>" for name, texts in judging.parts
            )
            buttons = "".join(_button(choice) for choice in judging.choices)
            place = f'<input type="hidden" name="place" value="{judging.place}">'
            text, draft = _sentence(judging.form.text), escape(visible(judging.draft))
            field = _FIELD.format(text=text, draft=draft) if self._accepts_corrections else ""
            form = f'<form method="post">{place}{field}{buttons}</form>'
            asks = f"<p>{judging.progress}</p><p><strong>{_sentence(judging.question)}</strong></p>"
            content = f"{asks}<dl>{parts}</dl>{form}<aside>{self._notes}</aside>"
        title = f"{judging.progress} | trimtab" if asked else "Done | trimtab"
        view = '<meta name="viewport" content="width=device-width">'
        head = f'<meta charset="utf-8">{view}<title>{title}</title><style>{_STYLE}</style>'
        return f'<!doctype html><html lang="en">{head}{content}<script type="module">{_SCRIPT}</script></html>'


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _button(choice: JudgementChoice) -> str:
    data = f'data-key="{choice.key}"' + (' data-sends="1"' if choice.value == "answer" else "")
    return f'<button name="said" value="{choice.value}" {data}>{choice.name} <kbd>{choice.key}</kbd></button>'
