"""Subprocess that checks a device: its name and `kernels` or `plain` as arguments, one line of JSON out."""

from __future__ import annotations

import json
import os
import sys

THREADS = 2  # enough to split work; more would wait for each other over such small models


def main(device: str, ways: str) -> str:
    """Return the rows of the check as JSON; `plain` leaves out the C kernels."""
    import trimtab.arms.device_parts as parts
    from trimtab.base.codec import to_plain
    from trimtab.model.threads import limit_to_free_cores, threads

    try:
        with threads(THREADS), limit_to_free_cores():
            rows = [to_plain(row) for row in parts.check_parts(device, kernels=ways == "kernels")]
    except MemoryError as error:
        return json.dumps({"error": f"{error}" or "no memory"})
    return json.dumps({"rows": rows})


if __name__ == "__main__":
    _out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of libraries must not mix with the answer
    _out.write(main(*sys.argv[1:]).encode() + b"\n")
    _out.flush()
