"""A process that is stopped while it embeds, before it records what it wrote, or after a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def interrupted(encoder: Any, monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """Context manager: embedding ends with an interrupt once the encoder has embedded `after` texts."""
    encode = encoder.encode

    def stops(texts: Any) -> Any:
        if texts and len(encoder.encoded) == after:
            raise KeyboardInterrupt
        return encode(texts)

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode", stops)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def interrupted_before_record(store: type, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Context manager: an update of an index is stopped where it would record the new state in a store of this type."""

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            yield


@contextmanager
def interrupted_after(owner: type, step: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Context manager: what an object of this type does is stopped behind a method, and names how to go on."""
    whole = getattr(owner, step)

    def stops(self: object, *given: object, **named: object) -> None:
        whole(self, *given, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, stops)
        with pytest.raises(Exception, match="--resume"):
            yield
