"""Gzip that is fed in any pieces unpacks as the standard library unpacks it whole, in pieces of bounded size."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.base.gunzip import PIECE, Gunzip


def fed(gunzip: Gunzip, data: bytes, step: int) -> list[bytes]:
    return [piece for at in range(0, len(data), step) for piece in gunzip.feed(data[at : at + step])]


@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=5), zeros=st.integers(0, 3), step=st.integers(1, 40)
)
def test_members_and_zeros_between_them_in_any_pieces(members: list[bytes], zeros: int, step: int) -> None:
    packed = b"".join(gzip.compress(member) + bytes(zeros) for member in members)
    gunzip = Gunzip()
    assert b"".join(fed(gunzip, packed, step)) == b"".join(members) == gzip.decompress(packed)
    assert gunzip.is_whole
    assert not gunzip.has_trailing_data
    assert (gunzip.packed, gunzip.unpacked) == (len(packed), sum(map(len, members)))


@given(end=st.integers(1, 60), step=st.integers(1, 40))
def test_a_stream_that_is_cut_off_is_not_whole(end: int, step: int) -> None:
    packed = gzip.compress(b"first") + gzip.compress(b"second")
    gunzip = Gunzip()
    fed(gunzip, packed[:-end], step)
    assert gunzip.is_whole == (len(packed) - end == len(gzip.compress(b"first")))


@pytest.mark.parametrize("junk", [b"junk", b"\0\0\x1fx", b"\x1f\x1f\x8b"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_other_data_behind_a_member_is_dropped_and_told(junk: bytes, step: int) -> None:
    gunzip = Gunzip()
    assert b"".join(fed(gunzip, gzip.compress(b"whole") + junk + gzip.compress(b"more"), step)) == b"whole"
    assert gunzip.has_trailing_data


def test_a_bomb_comes_in_small_pieces_and_little_of_it_is_taken_at_once() -> None:
    bomb, gunzip = gzip.compress(bytes(64 * 1024 * 1024)), Gunzip()
    piece = next(piece for piece in gunzip.feed(bomb) if piece)
    assert len(piece) <= PIECE
    assert gunzip.packed <= 8 * 1024


def test_damage_is_an_error() -> None:
    packed = bytearray(gzip.compress(os.urandom(1000)))
    packed[-6] ^= 1
    with pytest.raises(zlib.error):
        fed(Gunzip(), bytes(packed), 100)
    with pytest.raises(zlib.error):
        fed(Gunzip(), b"no gzip at all", 100)
