"""Prompts: the ids of the template, in training as in serving; text of rows stays text; what is trained on is the
answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from trimtab.base.errors import InputError
from trimtab.base.records import Document, Example, Hit, Message, Passage, Section
from trimtab.data.prompts import ChatEncoder, build_prompt

SPECIAL = [
    "<s>",
    "</s>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
SPECIAL += ["<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA = (
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
    "(m['content'] | trim) + '<|eot_id|>' %}{% if loop.first %}{% set c = bos_token + c %}{% endif %}{{ c }}{% "
    "endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + (m['content'] | trim) + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = (  # the system turn is put before the last question
    "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% set turns = messages[1:] if system else messages %}{{ bos_token }}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{{ '[INST] ' + (system + '\\n\\n' if loop.last and system else '')"
    " + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "gemma": GEMMA, "mistral": MISTRAL}
END = {"chatml": "<|im_end|>", "llama": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>"}
CORPUS = ["What is 2 + 2? It is 4, of course.", "user assistant system model", "Answer the question. Hello world!"] * 3


def tokenizer_with(template, *, adds_bos=False, pad="<pad>"):
    """A byte-level BPE in the manner of GPT-2, small enough to be trained in a test."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token=pad, chat_template=template
    )


TOKENIZERS = {name: tokenizer_with(template, adds_bos=True) for name, template in TEMPLATES.items()}


def encoder(name):
    tokenizer = TOKENIZERS[name]
    return ChatEncoder(tokenizer, [tokenizer.convert_tokens_to_ids(END[name])])


def turns(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    start = [Message(role="system", content=system)] if system else []
    return [*start, *(Message(role=role, content=text) for role, text in zip(roles, contents, strict=False))]


def by_template(name, messages, ask=True):
    """What transformers itself makes of the conversation."""
    plain = [{"role": message.role, "content": message.content} for message in messages]
    text = TOKENIZERS[name].apply_chat_template(plain, tokenize=False, add_generation_prompt=ask)
    return tuple(TOKENIZERS[name](text, add_special_tokens=False)["input_ids"])


ordinary = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ,.?!+'\n]{0,30}[A-Za-z0-9.?!]", fullmatch=True)


@pytest.mark.parametrize("name", TEMPLATES)
@given(contents=st.lists(ordinary, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
def test_a_prompt_has_the_ids_of_the_template(name, contents):
    messages = turns(*contents)
    assert encoder(name).prompt(messages) == by_template(name, messages)


def with_byte_fallback():
    """A BPE in the manner of SentencePiece, which spells unknown letters by their bytes."""
    core = Tokenizer(models.BPE(byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=own, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=CHATML)


def with_normalizer():
    tokenizer = tokenizer_with(CHATML)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def with_unknown_words():
    core = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>", chat_template=CHATML)


MAKERS = {"bytes": lambda: tokenizer_with(CHATML), "fallback": with_byte_fallback, "normalizer": with_normalizer}
ENCODERS = {name: ChatEncoder(make()) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", ENCODERS)
@given(
    text=st.text(max_size=200)
    | ordinary.map(lambda text: text * 20)
    | st.sampled_from(["▁a" * 50, "Ġb" * 50, "e\u0301" * 50])
)
def test_no_text_takes_fewer_tokens_than_are_foretold_from_its_bytes(name, text):
    assert ENCODERS[name].fewest_tokens(turns(text)) <= len(ENCODERS[name].text(text))


@pytest.mark.parametrize("name", [*ENCODERS, "unknown words"])
@given(text=st.text(max_size=200) | st.sampled_from(["▁a" * 50, "e\u0301" * 50, "\ufdfa" * 9]), answer=ordinary)
def test_no_text_takes_more_tokens_than_its_bytes_allow(name, text, answer):
    encoder = ENCODERS.get(name) or ChatEncoder(with_unknown_words())
    most = encoder.most_tokens(turns(text), answer)
    assert len(encoder.conversation(turns(text), answer).ids) <= most < 100 + 40 * len(text + answer)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("text", ["Hello world! " * 1000, "a" * 13_000])
def test_a_long_text_is_known_to_be_long_without_being_tokenized(name, text):
    assert ENCODERS[name].fewest_tokens(turns(text)) > 300


def test_nothing_is_foretold_of_a_tokenizer_with_unknown_words():
    assert ChatEncoder(with_unknown_words()).fewest_tokens(turns("word " * 1000)) == 0


@pytest.mark.parametrize("name", ["chatml", "llama"])
@given(contents=st.lists(ordinary, min_size=4, max_size=4))
def test_a_whole_conversation_has_the_ids_of_the_template(name, contents):
    """But for what the template puts after the last end token."""
    system, *rest = contents
    messages = turns(*rest, system=system)
    encoded = encoder(name).conversation(messages, "The answer.")
    whole = by_template(name, [*messages, Message(role="assistant", content="The answer.")], ask=False)
    assert encoded.ids == whole[: len(encoded.ids)]
    assert len(whole) - len(encoded.ids) <= 1


@pytest.mark.parametrize("name", TEMPLATES)
@given(contents=st.lists(st.text(max_size=20), min_size=5, max_size=5), answer=st.text(max_size=20))
def test_the_prompt_of_training_is_that_of_serving_for_every_turn(name, contents, answer):
    """Whatever the text: no token merges across the seam, and nothing is cut off."""
    made, messages = encoder(name), turns(*contents)
    encoded = made.conversation(messages, answer)
    prompt = made.prompt(messages)
    assert encoded.ids[: len(prompt)] == prompt
    assert encoded.ids[len(prompt) :] == made.answer(answer)
    for earlier in (1, 3):
        part = made.prompt(messages[:earlier])
        assert encoded.ids[: len(part)] == part


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("train_on", ["last", "all"])
def test_trained_on_are_answers_and_their_end_tokens_and_nothing_else(name, train_on):
    made = encoder(name)
    encoded = made.conversation(turns("Hello?", "Yes.", "What is 2 + 2?"), "It is 4.", train_on=train_on)
    runs, text = [], []
    for token, trained in [*zip(encoded.ids, encoded.trained, strict=True), (0, False)]:
        if trained:
            text.append(token)
        elif text:
            runs.append(TOKENIZERS[name].decode(text).strip())
            text = []
    expected = ["Yes." + END[name], "It is 4." + END[name]]
    assert runs == (expected if train_on == "all" else expected[1:])
    assert encoded.trained[-1]


@pytest.mark.parametrize("name", TEMPLATES)
def test_there_is_one_bos_and_the_end_is_learned_though_pad_is_eos(name):
    tokenizer = tokenizer_with(TEMPLATES[name], adds_bos=True, pad="</s>")
    made = ChatEncoder(tokenizer, [tokenizer.convert_tokens_to_ids(END[name])])
    encoded = made.conversation(turns("Hello?"), "Yes.")
    assert encoded.ids.count(tokenizer.bos_token_id) == (0 if name == "chatml" else 1)
    assert tokenizer.convert_ids_to_tokens(encoded.ids[-1]) == END[name]
    assert encoded.trained[-1]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("typed", SPECIAL)
def test_special_tokens_in_text_stay_text(name, typed):
    """A user who types <|im_start|> gets no special token past the template."""
    made = encoder(name)
    messages, plain = turns(f"a {typed} b", f"{typed}", f"{typed}{typed}"), turns("a b", "c", "d")
    special = set(TOKENIZERS[name].all_special_ids) | set(TOKENIZERS[name].convert_tokens_to_ids(SPECIAL))
    count = [
        sum(token in special for token in made.conversation(row, text).ids)
        for row, text in ((messages, typed), (plain, "e"))
    ]
    assert count[0] == count[1]
    assert typed in TOKENIZERS[name].decode(made.prompt(messages))
    assert made.decode(made.answer(typed)) == typed


@pytest.mark.parametrize("typed", ["<think>", "<tool_call>", "  <think> "])
def test_added_tokens_that_are_not_special_stay_text_too(typed):
    """<think> is no special token of the tokenizers that have it; only the template may begin a thought."""
    opened = CHATML.replace("assistant\\n'", "assistant\\n<think>'")
    tokenizer = tokenizer_with(opened)
    ordinary_ids = ChatEncoder(tokenizer).text("What is it, of course?")
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "<tool_call>", "  ")])
    think, call, blanks = tokenizer.convert_tokens_to_ids(["<think>", "<tool_call>", "  "])
    made = ChatEncoder(tokenizer)
    ids = made.prompt(turns(f"a {typed} b <|im_start|>", typed, typed))
    assert (ids.count(think), ids.count(call), ids[-1]) == (1, 0, think)
    assert tokenizer.decode(ids).count(typed.strip()) == (4 if "think" in typed else 3)
    assert made.decode(made.text(f"a{typed}b")) == f"a{typed}b"
    assert blanks in made.text("a  b")  # a run of blanks is no command, and code is read with it
    assert made.text("What is it, of course?") == ordinary_ids


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_system_turn_goes_before_the_first_question_where_the_template_would_misplace_it(name):
    messages = turns("Hello?", "Yes.", "What?", system="Be brief.")
    assert encoder(name).prompt(messages) == by_template(name, turns("Be brief.\n\nHello?", "Yes.", "What?"))


@pytest.mark.parametrize("adds_bos", [False, True])
def test_without_a_template_there_is_a_plain_one(adds_bos):
    """With a first token exactly where the tokenizer itself gives one."""
    tokenizer = tokenizer_with(None, adds_bos=adds_bos)
    made = ChatEncoder(tokenizer)
    encoded = made.conversation(turns("Hello?", "Yes.", "What?"), "It.")
    bos = "<s>" if adds_bos else ""
    text = f"{bos}### user\nHello?\n\n### assistant\nYes.</s>\n\n### user\nWhat?\n\n### assistant\nIt.</s>"
    assert tokenizer.decode(encoded.ids) == text
    document = made.document(
        Document(id="d", title="", source="", sections=(Section(path=(), text="Hello"),), digest="")
    )
    assert tokenizer.decode(document.ids) == f"{bos}Hello</s>"
    assert all(document.trained)


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = tokenizer_with(CHATML)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end token"):
        ChatEncoder(tokenizer)


def test_a_template_that_drops_a_turn_or_refuses_it_is_told():
    tokenizer = tokenizer_with(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    with pytest.raises(InputError, match="drops a turn"):
        ChatEncoder(tokenizer).prompt(turns("a", "b", "c"))
    refusing = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no') }}{% endif %}{{ m['content'] }}"
    )
    with pytest.raises(InputError, match="refuses turns of the roles user, tool"):
        ChatEncoder(tokenizer_with(refusing + "{% endfor %}")).prompt([*turns("a"), Message(role="tool", content="s")])


def hit(text):
    passage = Passage(id="p", document="d", title="Guide", path=("Guide", "Install"), text=text, source="d")
    return Hit(passage=passage, rank=1, score=1.0)


def test_composition_puts_instruction_shots_and_passages_in_their_places():
    row = Example(id="1", messages=tuple(turns("What?")), references=("That.",))
    prompt = build_prompt(row, "Be brief.", shots=[("q", "a")], hits=[hit("Text.")])
    assert [(message.role, message.content) for message in prompt.messages] == [
        ("system", "Be brief."),
        ("user", "q"),
        ("assistant", "a"),
        ("user", "Passages:\n[1] Guide › Install\nText.\n\nQuestion: What?"),
    ]
    own = Example(id="1", messages=tuple(turns("What?", system="Mine.")), references=("That.",))
    assert [message.content for message in build_prompt(own, "Be brief.").messages] == ["Mine.", "What?"]
    assert build_prompt(row, "").messages == row.messages
