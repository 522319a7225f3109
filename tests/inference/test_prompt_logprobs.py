"""Log-probabilities of a prompt's tokens are transformers', however the prompt is read and whatever runs beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from answering_models import EOS, FAMILIES, pair

from trimtab.base.errors import InputError
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.model.adapters.apply import attach
from trimtab.model.load import Base
from trimtab.model.prompt_tuning import virtual_tokens_of

pytestmark = pytest.mark.no_kernels

STOP = frozenset({EOS})
PROMPTS = tuple(
    tuple(3 + (17 * number + 5 * place) % 80 for place in range(length))
    for number, length in enumerate((90, 33, 1, 66))
)


def expected(model: torch.nn.Module, ids: tuple[int, ...]) -> torch.Tensor:
    """The log-probabilities over the vocabulary of each token from the second on."""
    with torch.inference_mode():
        out: torch.Tensor = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return out


def agrees(completion: Completion, ids: tuple[int, ...], logs_NV: torch.Tensor, likeliest: int) -> None:
    told = torch.tensor(completion.prompt_log_probabilities)
    torch.testing.assert_close(told, logs_NV[range(len(ids) - 1), list(ids[1:])], atol=1e-4, rtol=1e-4)
    assert len(completion.prompt_likeliest) == len(ids) - 1
    for pairs, logs_V in zip(completion.prompt_likeliest, logs_NV, strict=True):
        tokens, values = zip(*pairs, strict=True)
        torch.testing.assert_close(torch.tensor(values), logs_V.topk(likeliest).values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(torch.tensor(values), logs_V[list(tokens)], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefill_tokens", [7, 32, 512])
@pytest.mark.parametrize("max_new", [0, 1, 5])
def test_they_are_those_of_transformers(family: str, prefill_tokens: int, max_new: int) -> None:
    base, reference = pair(family)
    engine = Engine(base, STOP, slots=3, prefill_tokens=prefill_tokens)
    engine.pin(PROMPTS[0][:40])  # what is kept has no scores: it is read again
    plain = Request(id="plain", ids=PROMPTS[1], max_new=6)
    scored = [
        Request(id=str(number), ids=ids, max_new=max_new, prompt_logprobs=True, logprobs=True, top_logprobs=3)
        for number, ids in enumerate(PROMPTS)
    ]
    beside, *completions = engine.generate([plain, *scored])
    assert beside.prompt_log_probabilities == ()
    assert beside.ids == Engine(base, STOP).generate([plain])[0].ids
    for ids, completion in zip(PROMPTS, completions, strict=True):
        agrees(completion, ids, expected(reference, ids), 3)
        alone = Engine(base, STOP).generate([Request(id="alone", ids=ids, max_new=max_new or 1)])[0]
        assert completion.ids == alone.ids[:max_new]
        assert len(completion.log_probabilities) == len(completion.ids) + completion.finished
        assert completion.finished == (alone.finished and max_new > 0)


def test_a_prompt_that_an_asker_has_read_before_is_scored_whole() -> None:
    base, reference = pair("llama")
    engine = Engine(base, STOP)
    first = engine.generate([Request(id="first", ids=PROMPTS[0], max_new=8, cache_salt="a")])[0]
    ids = (*PROMPTS[0], *first.ids)
    asked = Request(id="next", ids=ids, max_new=0, prompt_logprobs=True, top_logprobs=1, cache_salt="a")
    completion = engine.generate([asked])[0]
    assert completion.cached_tokens == 0
    agrees(completion, ids, expected(reference, ids), 1)


def test_behind_virtual_tokens_they_are_of_the_prompts_own_tokens(tmp_path: Path) -> None:
    base: Base = pair.__wrapped__("llama")[0]
    attach(base, "soft-prompt", seed=3, virtual_tokens=5)
    virtual = virtual_tokens_of(base.model)
    assert virtual is not None
    ids = PROMPTS[1]
    whole, parts = (
        Engine(base, STOP, prefill_tokens=count).generate(
            [Request(id="a", ids=ids, max_new=0, prompt_logprobs=True, top_logprobs=1)]
        )[0]
        for count in (512, 8)
    )
    said = Engine(base, STOP).generate([Request(id="a", ids=ids[:9], max_new=1, logprobs=True, top_logprobs=1)])[0]
    assert len(whole.prompt_log_probabilities) == len(ids) - 1
    assert whole.prompt_log_probabilities == pytest.approx(parts.prompt_log_probabilities, abs=1e-4)
    assert whole.prompt_likeliest[8][0][0] == said.likeliest[0][0][0]  # what is likeliest behind the ninth token
    assert whole.prompt_likeliest[8][0][1] == pytest.approx(said.likeliest[0][0][1], abs=1e-4)


def test_no_new_token_is_asked_for_only_where_the_prompt_is_scored() -> None:
    with pytest.raises(InputError, match="at least one of each"):
        Engine(pair("llama")[0], STOP).generate([Request(id="a", ids=(3, 4), max_new=0)])
