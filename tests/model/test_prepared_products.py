"""A process does not grow with every new shape of a product."""

from __future__ import annotations

import os
import subprocess
import sys

KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
GROWTH = """
import trimtab, torch, psutil
right = torch.ones(256, 256, dtype=torch.bfloat16)
def products(first, end):
    for rows in range(first, end):
        torch.ones(rows, 256, dtype=torch.bfloat16) @ right
    return psutil.Process().memory_info().rss / 1e6
print(products(1, 420), products(420, 820))
"""


def grown(**environment: str) -> float:
    """MB that a process gains from its 420th new shape to its 820th: before, gaps that freed code leaves are still
    filling up."""
    plain = {name: value for name, value in os.environ.items() if name not in KEPT}
    command = [sys.executable, "-c", GROWTH]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    return after - before


def test_memory_stays_where_shapes_change() -> None:
    ours, as_usual = grown(), grown(**dict.fromkeys(KEPT, "1024"))
    assert ours < 40
    assert as_usual < 40 or as_usual > 3 * ours  # where this processor prepares nothing, there is nothing to keep
