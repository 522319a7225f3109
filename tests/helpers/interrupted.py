"""A process that is stopped while it embeds."""

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
