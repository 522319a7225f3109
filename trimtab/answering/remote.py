"""Answers from an OpenAI-compatible endpoint: a few connections at a time, retries with patience, errors that say what to check."""

from __future__ import annotations

import email.utils
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx

from trimtab.base.errors import InputError, RemoteError
from trimtab.base.records import Generation, Prompt

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between attempts: doubled each time, or what Retry-After asks for
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class RemoteModel:
    """A model behind `url` (which ends in `/v1`); the key is read from the environment variable `key_env`, never shown.

    Every answer is tried `attempts` times, each within `timeout` seconds. Raises InputError when the variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_env: str | None = None,
        *,
        parallel: int = 4,
        attempts: int = 5,
        timeout: float = 60.0,
    ) -> None:
        self.url, self.model, self.key_env = url.rstrip("/") + "/chat/completions", model, key_env
        self.parallel, self.attempts, self.timeout = parallel, attempts, timeout
        self._key = os.environ.get(key_env, "") if key_env else ""
        if key_env and not self._key:
            raise InputError(
                f"the environment variable {key_env} is not set",
                f"set it to the key of {url}, or take key_env out if it needs none",
                field="api.key_env",
            )

    def generate(self, prompts: Sequence[Prompt], max_new: int, labels: Sequence[str] = ()) -> list[Generation]:
        """Answer all prompts, in the order asked, greedily; with `labels`, an answer that names one becomes it.

        Tokens are those that the endpoint counted (0 when it does not tell); seconds those of the attempt that succeeded.
        Raises RemoteError when an answer cannot be had; what was not sent yet is then not sent.
        """
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with (
            httpx.Client(headers=headers, timeout=self.timeout) as client,
            ThreadPoolExecutor(max_workers=self.parallel) as pool,
        ):
            answers = [pool.submit(self._answer, client, prompt, max_new, labels) for prompt in prompts]
            try:
                return [answer.result() for answer in answers]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, client: httpx.Client, prompt: Prompt, max_new: int, labels: Sequence[str]) -> Generation:
        body = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "max_tokens": max_new,
            "temperature": 0,
        }
        reply, seconds = self._post(client, body)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] or ""
            finished = choice.get("finish_reason") != "length"
            usage = reply.get("usage") or {}
            prompt_tokens, new_tokens = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
            if not isinstance(text, str):
                raise TypeError
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._error(
                "the reply is not a chat completion", "check that the url is an OpenAI-compatible one, ending in /v1"
            ) from None
        return Generation(
            id=prompt.id,
            text=match_label(text, labels) if labels else text.strip(),
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            seconds=seconds,
            finished=finished,
        )

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> tuple[Any, float]:
        """The reply as JSON, and the seconds that the successful attempt took."""
        problem, asked_wait = "", None
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1) if asked_wait is None else asked_wait))
            started, asked_wait = time.perf_counter(), None
            try:
                response = client.post(self.url, json=body)
            except httpx.TimeoutException:
                problem = f"no answer within {self.timeout:g} s"
                continue
            except httpx.TransportError as error:
                problem = self._without_key(str(error)) or type(error).__name__
                continue
            if response.status_code in _AGAIN:
                problem = f"answered {response.status_code}"
                asked_wait = _retry_after(response.headers.get("Retry-After"))
                continue
            if response.status_code != 200:
                raise self._refused(response)
            try:
                return response.json(), time.perf_counter() - started
            except (json.JSONDecodeError, UnicodeDecodeError):
                problem = "the reply is not JSON"
        raise self._error(f"{problem}, {self.attempts} times", "check that the server is up and the url right")

    def _refused(self, response: httpx.Response) -> RemoteError:
        remedies = {
            401: f"check the key in {self.key_env or 'key_env (none is named)'}",
            403: f"check what the key in {self.key_env or 'key_env (none is named)'} may use",
            404: f"check that the url ends in /v1 and that the model {self.model!r} exists there",
        }
        said = self._without_key(" ".join(response.text.split()))[:200]
        remedy = remedies.get(response.status_code, f"check the url and the model name {self.model!r}")
        return self._error(f"answered {response.status_code} ({said})", remedy)

    def _error(self, problem: str, remedy: str) -> RemoteError:
        return RemoteError(f"{self.url}: {problem}; {remedy}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def match_label(text: str, labels: Sequence[str]) -> str:
    """The label that an answer is, or else the longest one that stands in it as whole words; else the answer itself."""
    plain = _words(text)
    found = [label for label in labels if f" {_words(label)} " in f" {plain} "]
    return next((label for label in labels if _words(label) == plain), max(found, key=len) if found else text.strip())


def _words(text: str) -> str:
    """Letters and digits in lower case, all else as single spaces: `card_arrival.` and `Card arrival` are the same."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def _retry_after(value: str | None) -> float | None:
    """Seconds that the server asks to wait, given as a number or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
