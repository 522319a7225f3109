"""The name of the machine."""

import pytest

from trimtab.base.machine import processor_name

AMD = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
    "bogomips\t: 5192.24\n"
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (AMD + "\n" + AMD, "AMD EPYC (family 26 model 2)"),
        ("processor\t: 0\nBogoMIPS\t: 243.75\nCPU part\t: 0xd40\n", ""),  # Arm: the system's own word is taken then
        ("model name\t: A: B\n", "A: B"),
        ("", ""),
    ],
)
def test_a_processor_is_told_with_its_generation(text: str, name: str) -> None:
    assert processor_name(text) == name
