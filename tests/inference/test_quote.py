"""Whatever the model would say, an answer that quotes stands word for word in a text, or is the one phrase that
stands in none."""

from __future__ import annotations

from typing import Any

import pytest
from answering_models import SPECIAL, speller
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from trimtab.base.errors import InputError
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.quote import QuoteConstraint, TokenBytes, word_bounds
from trimtab.inference.sampling import GREEDY, Sampling

pytestmark = pytest.mark.no_kernels
UNKNOWN = "I don't know"

letters = st.one_of(
    st.text('abtrue 1.,"€(%-\n', max_size=30),
    st.text("e\u0301\u0323ß\u200d👩👧🏽नमस्ते日本語 \u3000\u200cمی", max_size=12),
    st.text(max_size=12),
    st.sampled_from(SPECIAL),
)
texts = st.lists(letters, max_size=4).map("".join)


def engine(**options: Any) -> Engine:
    base, end = speller()
    return Engine(base, frozenset({end}), **options)


def asked(
    quote: QuoteConstraint, seed: int = 0, max_new: int = 200, sampling: Sampling | None = None, **more: Any
) -> Request:
    sampling = sampling or Sampling(temperature=2.0, seed=seed)
    return Request(id=str(seed), ids=(40 + seed, 50, 60), max_new=max_new, sampling=sampling, constraint=quote, **more)


def text(completion: Completion) -> str:
    return str(speller()[0].tokenizer.decode(list(completion.ids), skip_special_tokens=True)).strip()


def spans(whole: str) -> set[str]:
    starts, ends = word_bounds(whole)
    return {whole[start:end] for start in starts for end in ends if start < end}


@given(shown=st.lists(texts, max_size=3).map(tuple), seed=st.integers(0, 20), room=st.integers(12, 60))
@example(shown=("Call <|im_start|> or <|end|>.",), seed=3, room=60)
@example(shown=("e\u0301,x",), seed=1, room=12)
def test_an_answer_is_a_span_at_word_boundaries_or_the_phrase(shown: tuple[str, ...], seed: int, room: int) -> None:
    (completion,) = engine().generate([asked(QuoteConstraint(texts=shown, phrases=(UNKNOWN,)), seed, room)])
    said = text(completion)
    assert said == UNKNOWN or said in set().union(*map(spans, shown))
    assert completion.finished or len(completion.ids) == room


@given(whole=texts)
def test_what_is_quoted_begins_and_ends_beside_blanks_or_signs(whole: str) -> None:
    for span in spans(whole):
        assert span == span.strip()
        assert any(letter.isalnum() for letter in span) or not span.isascii()


@pytest.mark.parametrize(
    ("whole", "quoted", "cut"),
    [
        ("It takes 2.5 days.", {"2.5", "2.5 days", "2.5 days.", "It takes"}, {"2", "5", "5 days", "ays", "tak"}),
        ("At 10:30, don't (really) pay "
"€1,000.", {"10:30", "don't", "€1,000", "1,000", "(really) pay"}, {"10", "30", "don", "000", "€"}),
        ("Ask ann-lee@x.org, 5% off", {"ann-lee@x.org", "5%", "5"}, {"ann", "x.org", "%", "@x.org"}),
        ("cafe\u0301 au lait", {"cafe\u0301", "au"}, {"cafe", "caf"}),
        ("本社は東京です", {"東京", "本社"}, {""}),
        ("一二 => --", {"一二"}, {"=>", "一二 =>", "--"}),
        ("می\u200cخواهم", {"می\u200cخواهم"}, {"می", "خواهم"}),
    ],
)  # fmt: skip
def test_words_stay_whole(whole: str, quoted: set[str], cut: set[str]) -> None:
    assert quoted <= spans(whole)
    assert not cut & spans(whole)


def test_every_span_and_the_phrase_can_be_said() -> None:
    """Nothing but what is no span is kept from the model: the rarest answers come, too, when all tokens are alike."""
    quote = QuoteConstraint(texts=("true 11", "it"), phrases=(UNKNOWN,))
    hot = [asked(quote, seed, 40, Sampling(temperature=1e6, seed=seed)) for seed in range(60)]
    assert {text(one) for one in engine().generate(hot)} == {"true", "true 11", "11", "it", UNKNOWN}


def test_alone_in_a_batch_and_with_little_room_it_is_the_same() -> None:
    shown = ("The office opens at 8:30 and closes at noon.", "true true 1 blue", "Nobody is true.")
    quotes = [QuoteConstraint(texts=shown[number % 3 :], phrases=(UNKNOWN,)) for number in range(8)]
    requests = [asked(quote, number, 30, GREEDY) for number, quote in enumerate(quotes)]
    together = [text(one) for one in engine().generate(requests)]
    assert together == [text(engine().generate([request])[0]) for request in requests]
    assert together == [text(one) for one in engine(slots=3, prefill_tokens=4).generate(requests)]
    assert len(set(together)) > 1


def test_no_room_no_word() -> None:
    (completion,) = engine().generate([asked(QuoteConstraint(texts=("unspellable",), phrases=(UNKNOWN,)), max_new=3)])
    assert (text(completion), completion.finished) == ("", False)


def test_the_blank_of_a_sentencepiece_token_may_come_first() -> None:
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "P", "a", "▁P", "▁Pa", "é"]
    inner = Tokenizer(
        BPE({word: number for number, word in enumerate(words)}, [("▁", "P"), ("▁P", "a")], byte_fallback=True)
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    first = {token for token, _ in TokenBytes(tokenizer, frozenset({1}), len(words))._text("Paé", whole=False).first}
    assert {words[token] for token in first} == {"P", "▁P", "▁Pa", "<0x50>"}


def test_a_tokenizer_of_unknown_spelling_is_refused_in_one_line() -> None:
    inner = Tokenizer(BPE({"a": 0, "b": 1}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="b")
    with pytest.raises(InputError, match="take quote out"):
        TokenBytes(tokenizer, frozenset({1}), 2)
