"""Receipts: a signed proof, sent with each answer, that this server gave that answer; without it none can be judged.

The server keeps nothing for it but one secret, in the store of judgements. So answers can be judged with or without a
table `[traffic]`, after a restart, and at every server that shares the store.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.base.records import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAnswer:
    """An answer that the server gave: its id, and the arm and version that gave it."""

    id: str
    arm: str
    version: str


class Receipts:
    """Writes receipts, and reads them back. `secret`: the same in every server of a store."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def write(self, given: GivenAnswer, voter: str | None, messages: Iterable[Message], text: str) -> str:
        """Return the receipt of an answer. `voter`: who asked, as `voter_of`; `messages`: the conversation, of which
        the user's turns are signed."""
        body = json.dumps([given.id, given.arm, given.version]).encode()
        return f"{_encode(body)}.{_encode(self._sign(body, voter, messages, text))}"

    def read(self, receipt: str, voter: str | None, messages: Iterable[Message], text: str) -> GivenAnswer | None:
        """Return the answer that a receipt speaks of; None where it is not the receipt of this text, these turns of the
        user and this voter."""
        try:
            body, signature = map(_decode, receipt.split("."))
        except ValueError:
            return None
        if not hmac.compare_digest(signature, self._sign(body, voter, messages, text)):
            return None
        name, arm, version = json.loads(body)
        return GivenAnswer(id=name, arm=arm, version=version)

    def _sign(self, body: bytes, voter: str | None, messages: Iterable[Message], text: str) -> bytes:
        asked = [message.content for message in messages if message.role == "user"]
        signed = json.dumps([body.decode("latin-1"), voter, asked, text])
        return hmac.digest(self._secret, signed.encode(), "sha256")


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
