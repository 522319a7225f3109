"""What Ollama's template says of a conversation is what the chat template said while the arm was measured."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from trimtab.base.errors import InputError
from trimtab.base.records import Message
from trimtab.data.prompts import ChatEncoder
from trimtab.exports.modelfile import go_template, modelfile, turn_template_of

pytestmark = pytest.mark.any_processor

SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are \"Smol\" {{here}}<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% for m in messages %}{{ '<|begin|>' if loop.first }}<|h|>{{ m['role'] }}<|e|>\n\n"
    "{{ m['content'] | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|h|>assistant<|e|>\n\n{% endif %}"
)
COUNTED = (
    "{% for m in messages %}<{{ loop.index }} {{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}"
    "<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def encoder_of(tiny_model_folder):
    def made(template):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
        tokenizer.chat_template = template
        return ChatEncoder(tokenizer)

    return made


def said_by_go(template, turns):
    """The few words of Go's templates that are used here, read as text/template reads them."""
    system = any(turn["role"] == "system" for turn in turns)
    text = r'"(?:[^"\\]|\\.)*"'
    default, loop, ask = re.fullmatch(
        r"(?:\{\{ if not \.System \}\}(.*?)\{\{ end \}\})?\{\{ range \.Messages \}\}(.*)\{\{ end \}\}\{\{ end \}\}"
        rf"((?:\{{\{{ {text} \}}\}})*)",
        template,
        re.DOTALL,
    ).groups()

    def literal(part):
        return "".join(json.loads(found) for found in re.findall(rf"\{{\{{ ({text}) \}}\}}", part or ""))

    bodies = dict(re.findall(r'\{\{ (?:else )?if eq \.Role "(\w+)" \}\}(.*?)(?=\{\{ else if|\Z)', loop, re.DOTALL))
    said = "" if system else literal(default)
    for turn in turns:
        before, after = bodies[turn["role"]].split("{{ .Content }}")
        said += literal(before) + turn["content"] + literal(after)
    return said + literal(ask)


words = st.text("abc xyz{}\"'é\n", min_size=1, max_size=8).map(str.strip).filter(bool)


@pytest.mark.parametrize("template", [SMOL, LLAMA3], ids=["smol", "llama3"])
@given(turns=st.lists(words, min_size=1, max_size=5).filter(lambda one: len(one) % 2 == 1), system=st.none() | words)
def test_every_conversation_reads_the_same(encoder_of, template, turns, system):
    encoder = encoder_of(template)
    roles = [("user", "assistant")[number % 2] for number in range(len(turns))]
    said = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)]
    said = said if system is None else [{"role": "system", "content": system}, *said]
    wanted = encoder.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert said_by_go(go_template(turn_template_of(encoder)), said) == wanted


@pytest.mark.parametrize(
    ("template", "problem"), [(COUNTED, "says more of the turns"), (NO_SYSTEM, "has no system turn")]
)
def test_a_template_that_roles_do_not_tell_is_refused(encoder_of, template, problem):
    with pytest.raises(InputError, match=problem):
        turn_template_of(encoder_of(template))


def test_the_file_asks_greedily_and_adds_nothing_of_its_own(encoder_of):
    shots = [Message(role="user", content="one\ntwo"), Message(role="assistant", content="three")]
    settings_ = {"gguf": "m.gguf", "stops": ["<|im_end|>"], "most": 24, "context": 256}
    text = modelfile(turn_template_of(encoder_of(SMOL)), instruction="Which city?", shots=shots, **settings_)
    assert text.splitlines()[0] == "FROM ./m.gguf"
    assert 'SYSTEM """Which city?"""\nMESSAGE user """one\ntwo"""\nMESSAGE assistant """three"""\n' in text
    for line in ('stop "<|im_end|>"', "temperature 0", "repeat_penalty 1", "num_predict 24", "num_ctx 256"):
        assert f"PARAMETER {line}\n" in text
    without = modelfile(turn_template_of(encoder_of(SMOL)), instruction="", shots=(), **settings_)
    assert "SYSTEM" not in without.replace("if not .System", "")
    with pytest.raises(InputError, match="cannot quote"):
        modelfile(turn_template_of(encoder_of(SMOL)), instruction='a """ b', shots=(), **settings_)
