"""torch's private operators: found out where they are gone or wrong, in one file, and not needed for any number that
a user sees."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, base_of, random_rows
from torch import Tensor

import trimtab
from trimtab.inference.engine import Engine, Request
from trimtab.model.adapters.apply import add_lora, trainable_parameters
from trimtab.model.attention import PackedSequences
from trimtab.model.fast.int8_weights import int8_forwards
from trimtab.model.fast.packed_weights import merged_and_packed
from trimtab.model.kernels import torch_private
from trimtab.model.kernels.ops import softmax_backward
from trimtab.model.kernels.torch_private import (
    int8_matmul,
    mkldnn_linear,
    softmax_gradient,
    works,
)
from trimtab.training.optim import Optimizer
from trimtab.training.sft import SupervisedObjective

PACKAGE = Path(trimtab.__file__).parent
OPERATORS: list[Callable[..., Any]] = [int8_matmul, mkldnn_linear, softmax_gradient]
IDS = torch.arange(3, 23)
REQUESTS = [
    Request(id=str(number), ids=tuple(range(3, 20 + 7 * number)), max_new=8) for number in range(3)
]  # the same beginning: they share what was read


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[Callable[..., object]]:
    """All probes fail; which operators somebody wanted to use."""
    found: set[Callable[..., object]] = set()

    def probed(operator: Callable[..., object]) -> bool:
        found.add(operator)
        return False

    monkeypatch.setattr(torch_private, "_probed", probed)
    return found


@pytest.mark.parametrize("operator", [int8_matmul, softmax_gradient], ids=lambda one: one.__name__)
def test_what_this_torch_has_passes_its_probe(operator: Callable[..., object]) -> None:
    assert works(operator)
    with torch.inference_mode():  # where it may be asked first
        torch_private._probed.cache_clear()
        assert works(operator)


def gone(*_: Any, **__: Any) -> Any:
    raise AttributeError("no such operator")


def with_other_arguments() -> None: ...


def refused(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("not for this processor")


def of_other_numbers(operator: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(*given: Any, **named: Any) -> Any:
        out = operator(*given, **named)
        return (out[0] + 0.1, out[1]) if isinstance(out, tuple) else out + 0.1

    return wrong


@pytest.mark.parametrize("how", ["gone", "with other arguments", "refused", "of other numbers"])
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda one: one.__name__)
def test_a_probe_finds_an_operator_that_cannot_be_used(
    operator: Callable[..., Any], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {"gone": gone, "with other arguments": with_other_arguments, "refused": refused}
    monkeypatch.setattr(torch_private, operator.__name__, ways.get(how) or of_other_numbers(operator))
    torch_private._probed.cache_clear()
    assert not works(operator)
    torch_private._probed.cache_clear()


def logits(base: Any) -> Tensor:
    layout = PackedSequences([len(IDS)])
    with torch.inference_mode():
        return base.logits(base.hidden(IDS, layout.positions_N, layout)).float()


def losses(family: str) -> list[float]:
    base = base_of(family)
    add_lora(base, 4, 8.0, seed=0)
    objective, optimizer, found = (
        SupervisedObjective(random_rows(12), batch=6, seed=0),
        Optimizer(trainable_parameters(base.model)),
        [],
    )
    for step in range(5):
        for place, batch in enumerate(objective.batches(step)):
            loss = objective.loss(base, batch).value
            optimizer.backward(loss, place)
            found.append(float(loss.detach()))
        optimizer.step(3e-3)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_training_and_answers_are_the_same_without_any_of_them(
    family: str, asked: set[Callable[..., object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> tuple[list[float], list[tuple[int, ...]], Tensor]:
        answers = Engine(base_of(family), frozenset({2}), slots=2).generate(REQUESTS)
        return losses(family), [answer.ids for answer in answers], logits(base_of(family))

    without = run()
    monkeypatch.undo()
    with_them = run()
    assert without[0] == pytest.approx(with_them[0], abs=1e-5)
    assert without[1] == with_them[1]
    assert torch.allclose(without[2], with_them[2], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_laid_out_and_in_8_bits_answers_are_as_near_without_any_of_them(
    dtype: torch.dtype, asked: set[Callable[..., object]]
) -> None:
    base = base_of("llama", dtype)
    plain = logits(base)
    with merged_and_packed(base):
        assert torch.allclose(logits(base), plain, atol=0.05 * float(plain.abs().max()))
    with int8_forwards(base):
        gap = (logits(base) - plain).abs().max()
    assert 0 < gap < 0.1 * plain.std() * plain.abs().max()
    assert int8_matmul in asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_a_softmax_is_autograds_without_its_operator(
    dtype: torch.dtype, asked: set[Callable[..., object]]
) -> None:
    draw = torch.Generator().manual_seed(0)
    scores, grads = (torch.randn(2, 5, 7, generator=draw, dtype=dtype) for _ in range(2))
    weights = scores.requires_grad_().softmax(-1)
    (right,) = torch.autograd.grad(weights, scores, grads)
    assert torch.allclose(softmax_backward(weights.detach(), grads.clone()), right, rtol=1e-5, atol=1e-6)
    assert softmax_gradient in asked


def private_names(source: str) -> list[str]:
    """Names of torch that begin with an underscore, by attribute or import."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if re.fullmatch(r"torch(\.\w+)*\._[a-z]\w*", name, re.IGNORECASE):
                found.append(name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found += [name for name in names if name.startswith("_")]
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("torch.") and "._" in alias.name]
    return found


def test_private_names_of_torch_stand_in_one_file() -> None:
    files = {path for path in PACKAGE.rglob("*.py") if private_names(path.read_text(encoding="utf-8"))}
    assert files == {PACKAGE / "model" / "kernels" / "torch_private.py"}


@pytest.mark.parametrize(
    "source",
    ["torch._C.x", "torch.ops.aten._a(b)", "from torch import _x", "from torch._inductor import y", "import torch._z"],
)
def test_the_rule_for_private_names_can_fail(source: str) -> None:
    assert private_names(source)
