"""Client for remote models: a few connections in parallel, retries, and errors that say what to check."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from trimtab.base.config import ENDPOINT_KINDS, ApiTable
from trimtab.base.errors import InputError, RemoteError
from trimtab.base.files import append_own, read_own_lines, sha256_text
from trimtab.base.records import Generation, Prompt
from trimtab.base.sanitize import visible
from trimtab.base.tables import resolve
from trimtab.inference.bounded_http import (
    ACCEPTED_ENCODINGS,
    MAX_WAIT_SECONDS,
    ReplyTooLargeError,
    mask_secret,
    parse_reply,
    read_within,
    replace_lone_surrogates,
    retry_after_seconds,
)
from trimtab.inference.protocols import Protocol, ReplyError

FIRST_WAIT = 0.5  # seconds before the second attempt: doubled each time, or as Retry-After asks
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")  # characters allowed in a header
_SHOWN_CHARACTERS, _READ_CHARACTERS = 200, 4_000  # of a refusal: in the message, and searched for the key


class RemoteModel:
    """A model behind `url` (which ends in `/v1`); the key is read from the environment variable `key_env` and never
    shown.

    `api`: a name in `ENDPOINT_KINDS`. Every answer is tried `attempts` times, each within `timeout` seconds from
    request to last byte. With `log_file`, answers are written to this file as they come and are not requested again.
    Raises InputError if the variable is not set, or holds what no header can carry.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_env: str | None = None,
        *,
        api: str = "chat",
        parallel: int = 4,
        attempts: int = 5,
        timeout: float = 60.0,
        log_file: Path | None = None,
    ) -> None:
        self._kind = ENDPOINT_KINDS[api]
        self._protocol: Protocol = resolve(self._kind.protocol)
        self.url, self.model, self.key_env = url.rstrip("/") + self._protocol.path, model, key_env
        self.parallel, self.attempts, self.timeout = parallel, attempts, timeout
        self._key = os.environ.get(key_env, "") if key_env else ""
        if key_env and not self._key:
            raise InputError(
                f"the environment variable {key_env} is not set",
                f"set it to the key of {url}, or take key_env out if it needs none",
                field="api.key_env",
            )
        if self._key and not _HEADER.fullmatch(self._key):
            raise InputError(
                f"the environment variable {key_env} holds a line break or another character that no key has",
                "set it to the key alone",
                field="api.key_env",
            )
        self._log_file, self._writing, self._stopped = log_file, threading.Lock(), threading.Event()
        self._answers = {line["request"]: line for line in read_own_lines(log_file, "request")} if log_file else {}

    def generate(self, prompts: Sequence[Prompt], max_new: int, labels: Sequence[str] = ()) -> list[Generation]:
        """Answer all prompts, in their order, greedily; with `labels`, an answer that names one becomes it.

        An API that decides chooses one of `labels` and gives the probability of each; `max_new` is then ignored. Token
        counts are the endpoint's (0 if it gives none); seconds are those of the successful attempt. Raises RemoteError
        if an answer cannot be had; prompts that were not sent yet are then not sent.
        """
        headers = {"Accept-Encoding": ACCEPTED_ENCODINGS} | (
            {"Authorization": f"Bearer {self._key}"} if self._key else {}
        )
        self._stopped.clear()
        # The client is closed before the pool waits: a request that hangs in a server's headers ends with its
        # connection.
        with (
            ThreadPoolExecutor(max_workers=self.parallel) as pool,
            httpx.Client(headers=headers, timeout=self.timeout) as client,
        ):
            answers = [pool.submit(self._answer, client, prompt, max_new, labels) for prompt in prompts]
            try:
                return [self._in_time(answer) for answer in answers]
            except RemoteError:  # running requests are paid for: wait for them and log them
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                wait([answer for answer in answers if not answer.cancelled()], timeout=self.timeout)
                raise
            finally:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def _in_time(self, answer: Future[Generation]) -> Generation:
        """Wait for an answer, at most as long as all attempts and the waits between them may take."""
        longest = self.attempts * (2 * self.timeout + MAX_WAIT_SECONDS)
        try:
            return answer.result(timeout=longest)
        except TimeoutError:
            raise self._error(f"no whole answer within {longest:g} s", "check that the server is up") from None

    def _answer(self, client: httpx.Client, prompt: Prompt, max_new: int, labels: Sequence[str]) -> Generation:
        body = self._protocol.body(self.model, prompt, max_new, labels)
        request = sha256_text(self.url, json.dumps(body))
        found = self._answers.get(request)
        if found is None:
            found = self._read(*self._post(client, body), labels)
            self._log_answer(request, found)
        text, probabilities = found["text"], found.get("probabilities", [])
        if self._kind.writes_text:
            text = match_label(text, labels) if labels else text.strip()
        return Generation(
            id=prompt.id,
            text=text,
            probability=max(probabilities, default=None),
            probabilities=dict(zip(labels, probabilities, strict=True)) if probabilities else {},
            model=found.get("model", ""),
            **{name: found[name] for name in ("prompt_tokens", "new_tokens", "seconds", "finished")},
        )

    def _read(self, reply: Any, seconds: float, labels: Sequence[str]) -> dict[str, Any]:
        """Return a reply's text and figures, validated."""
        protocol = self._protocol
        try:
            found = protocol.read(reply, labels)
        except ReplyError as error:
            raise self._error(str(error), "check that the model answers questions of type choice") from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
            raise self._error(f"the reply is not {protocol.expected}", protocol.remedy) from None
        text = found["text"]
        if self._key and len(self._key) >= 12:  # a shorter one may be a word of an answer, such as `none`
            text = text.replace(self._key, "***")
        return {**found, "text": replace_lone_surrogates(text), "seconds": seconds}

    def _log_answer(self, request: str, found: dict[str, Any]) -> None:
        if self._log_file is None:
            return
        with self._writing:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            append_own(self._log_file, {"request": request, **found})
            self._answers[request] = found

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> tuple[Any, float]:
        """Return the reply as JSON, and the seconds of the successful attempt."""
        problem, retry_after = "", None
        for attempt in range(self.attempts):
            if attempt and self._stopped.wait(_pause_before(attempt, retry_after)):
                break  # another answer failed: nobody waits for this one
            started, retry_after = time.perf_counter(), None
            try:
                deadline = time.monotonic() + self.timeout
                with client.stream("POST", self.url, json=body) as response:
                    body_read = read_within(response, deadline)
            except httpx.TimeoutException:
                problem = f"no answer within {self.timeout:g} s"
                continue
            except ReplyTooLargeError as error:
                raise self._error(str(error), "check that the url is right") from None
            except (httpx.TransportError, OSError) as error:
                problem = self._without_key(str(error)) or type(error).__name__
                continue
            except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError) as error:
                raise self._error(self._without_key(str(error)) or type(error).__name__, "check the url") from None
            if response.status_code in _RETRY_STATUSES:
                problem = f"answered {response.status_code}"
                retry_after = retry_after_seconds(response.headers.get("Retry-After"))
                continue
            if response.status_code != 200:
                raise self._refusal(response.status_code, body_read)
            try:
                return parse_reply(body_read), time.perf_counter() - started
            except ValueError:
                problem = "the reply is not JSON"
        raise self._error(f"{problem}, {self.attempts} times", "check that the server is up and the url right")

    def _refusal(self, status: int, body: bytes) -> RemoteError:
        remedies = {
            401: f"check the key in {self.key_env or 'key_env (none is named)'}",
            403: f"check what the key in {self.key_env or 'key_env (none is named)'} may use",
            404: f"check that the url ends in /v1 and that the model {self.model!r} exists there",
        }
        body_read = self._without_key(body.decode(errors="replace"))[:_SHOWN_CHARACTERS]
        remedy = remedies.get(status, f"check the url and the model name {self.model!r}")
        return self._error(f"answered {status} ({body_read})", remedy)

    def _error(self, problem: str, remedy: str) -> RemoteError:
        return RemoteError(f"{self.url}: {problem}; {remedy}")

    def _without_key(self, text: str) -> str:
        """Return foreign text on one line, without the key or a piece of it, and without terminal control
        characters.
        """
        return visible(mask_secret(" ".join(text[:_READ_CHARACTERS].split()), self._key))


def _pause_before(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before an attempt (from 1): what the server asked for, else twice those before."""
    return min(MAX_WAIT_SECONDS, FIRST_WAIT * 2 ** (attempt - 1) if retry_after is None else retry_after)


def remote_model(table: ApiTable, log_file: Path | None = None) -> RemoteModel:
    """Return the model of an `[api.NAME]` table; raises InputError if its key is not set."""
    return RemoteModel(table.url, table.model, table.key_env, api=table.api, log_file=log_file)


def match_label(text: str, labels: Sequence[str]) -> str:
    """Return the label that an answer equals, or else the longest one in it as whole words; else the answer itself."""
    plain = _words(text)
    found = [label for label in labels if f" {_words(label)} " in f" {plain} "]
    return next((label for label in labels if _words(label) == plain), max(found, key=len) if found else text.strip())


def _words(text: str) -> str:
    """Return letters and digits in lower case, all else as single spaces: `card_arrival.` and `Card arrival` are the
    same.
    """
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())
