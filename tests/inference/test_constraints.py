"""Whatever the model would say, a constrained answer fits: schema, expression, choice; what cannot be held to is
refused in one line."""

from __future__ import annotations

import json
import random
import re
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from answering_models import SPECIAL, speller
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from trimtab.base.errors import InputError, PackageError
from trimtab.data.function_calls import CallReader, call_start
from trimtab.inference import constraints as room
from trimtab.inference.constraints import Constraint, grammars_of
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.inference.sampling import Sampling

pytestmark = pytest.mark.no_kernels


def engine(**options: Any) -> Engine:
    base, end = speller()
    return Engine(base, frozenset({end}), **options)


def asked(constraint: Constraint | None, seed: int = 0, max_new: int = 400, **more: Any) -> Request:
    sampling = Sampling(temperature=0.7, seed=seed)
    return Request(id=str(seed), ids=(40, 50, 60), max_new=max_new, sampling=sampling, constraint=constraint, **more)


def text(completion: Completion) -> str:
    return str(speller()[0].tokenizer.decode(list(completion.ids)))


texts = st.text('abé"\\{}:, \n☃😀', max_size=4)
leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda least, more: {"type": "integer", "minimum": least, "maximum": least + more},
        st.integers(-99, 99),
        st.integers(0, 999),
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(texts, st.integers(-9, 9), st.none()), min_size=1, max_size=3),
    ),
    st.builds(lambda value: {"const": value}, texts),
    st.just({"type": "string", "pattern": "^[a-c]{2,3}-[0-9]$"}),
    st.just({"type": ["integer", "null"], "minimum": 0, "maximum": 20}),
    st.sampled_from([".", "[^a]", "^[ -~]$", r"^\w\s$", '^["a]$', "^a|b$", "^(ab)*c?$", r"^\d{4}-\d{2}$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.builds(
        lambda pattern, least, more: {
            "type": "string",
            "pattern": pattern,
            "minLength": least,
            "maxLength": least + more,
        },
        st.sampled_from(["^[a-z]+$", "^a[0-9]*b?$", r"^x?\d{1,3}-$", "^[^a]*$"]),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    st.builds(
        lambda divisor, bounds: {"type": "integer", "multipleOf": divisor, **bounds},
        st.sampled_from([1, 3, 250, 2000]),
        st.sampled_from([{"minimum": -9, "exclusiveMaximum": 9000}, {"minimum": 5}]),
    ),
    st.just({"type": "integer", "multipleOf": 3}),
    st.just({"type": "number", "multipleOf": 0.25, "minimum": -1, "maximum": 1.5}),
    st.just({"type": "string", "enum": ["a", 1, "abc"], "maxLength": 2}),
)  # fmt: skip


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(st.text('abc "é', min_size=1, max_size=3), parts, max_size=3)
    return st.builds(
        lambda properties, some, closed: {
            "type": "object",
            "properties": properties,
            "required": list(properties)[:some],
            **({"additionalProperties": False} if closed else {}),
        },
        properties,
        st.integers(0, 3),
        st.booleans(),
    )


def merged(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas beside others: `allOf`, and keywords beside a union, an enum or each other."""
    return st.one_of(
        st.builds(lambda several: {"allOf": several}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(lambda option, other: {**other, "anyOf": [option, {"type": "integer"}]}, parts, parts),
    )


def exclusive(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`oneOf`, of whatever and of objects that a constant tells apart."""

    def tagged(kind: str, part: dict[str, Any], required: bool) -> dict[str, Any]:
        properties = {"kind": {"const": kind}, "a": part}
        return {"type": "object", "properties": properties, "required": ["kind"] if required else ["a"]}

    return st.one_of(
        st.builds(lambda options: {"oneOf": options}, st.lists(parts, min_size=1, max_size=3)),
        st.builds(
            lambda one, other, required: {"oneOf": [tagged("x", one, True), tagged("y", other, required)]},
            parts,
            parts,
            st.booleans(),
        ),
    )


schemas = st.recursive(
    leaves,
    lambda parts: st.one_of(
        objects(parts),
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, parts, st.integers(0, 3)),
        st.builds(lambda options: {"anyOf": options}, st.lists(parts, min_size=1, max_size=3)),
        merged(parts),
        exclusive(parts),
    ),
    max_leaves=5,
)


@given(schema=schemas, seed=st.integers(0, 5))
@example(
    schema={
        "type": "object",
        "properties": {"acé": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2}},
        "required": [],
    },
    seed=3,
)  # fmt: skip
def test_an_answer_is_valid_for_its_schema(schema: dict[str, Any], seed: int) -> None:
    """Or the schema is refused: it is never taken and not enforced."""
    try:
        (completion,) = engine().generate([asked(Constraint(schema=json.dumps(schema)), seed, max_new=2000)])
    except InputError:
        return
    assert completion.finished
    assert list(Draft202012Validator(schema).iter_errors(json.loads(text(completion)))) == []


@pytest.mark.parametrize(
    ("first", "fits", "wrong"), [(0xE0, 0xA0, 0x9F), (0xED, 0x9F, 0xA0), (0xF0, 0x90, 0x8F), (0xF4, 0x8F, 0x90)]
)
def test_no_letter_is_begun_that_is_none(first, fits, wrong):
    """The library's strings take half a surrogate pair (0xED 0xA0 …) for a letter: it reads as three that are not
    known, too many for maxLength."""
    base, end = speller()
    vocabulary = base.model.config.vocab_size
    grammars = grammars_of(base.tokenizer, frozenset({end}), vocabulary)
    matcher = grammars.matcher(Constraint(schema='{"type": "string", "maxLength": 1}'))
    number = {text: place for place, text in enumerate(grammars._tokenizer.decoded_vocab)}

    def allowed() -> set[int]:
        bits_1W = torch.zeros(1, -(-vocabulary // 32), dtype=torch.int32)
        matcher.fill(bits_1W, 0)
        return {place for place in range(vocabulary) if bits_1W[0, place // 32] >> place % 32 & 1}

    for token in (b'"', bytes([first])):
        assert number[token] in allowed()
        assert matcher.accept(number[token])
    assert number[bytes([fits])] in allowed()
    assert number[bytes([wrong])] not in allowed()
    for token in (bytes([fits]), b"\x80"):
        assert matcher.accept(number[token])
    assert number[b"\x85"] in allowed() or number[b'"'] in allowed()  # afterwards as before


FUNCTIONS = (
    (
        "save",
        '{"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"]}',
    ),
    ('drop "é"', '{"type": "object", "properties": {}}'),
)
MOST = 400  # tokens of an answer
SCHEMAS = {name: json.loads(schema) for name, schema in FUNCTIONS}


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"must_call": True}, None),
        ({}, str.isprintable),
        ({"choices": ("yes", "no")}, ("yes", "no").__contains__),
        ({"regex": "[0-9]{3}"}, re.compile("[0-9]{3}").fullmatch),
        ({"schema": '{"enum": [1, 2]}'}, ("1", "2").__contains__),
        ({"json_object": True}, lambda said: isinstance(json.loads(said), dict)),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else "",
)
def test_an_answer_is_a_call_with_valid_arguments_or_what_it_may_be_without_one(
    more: dict[str, Any], fits: Any
) -> None:
    begun = call_start("save") if fits else ""  # a random model never begins one by itself
    for seed in range(8):
        matcher = _Driven(Constraint(calls=FUNCTIONS, **more), begun if seed % 2 else "")
        text_before, name, arguments = read_call(matcher.answer(seed))
        if name:
            assert list(Draft202012Validator(SCHEMAS[name]).iter_errors(json.loads(arguments))) == []
            assert text_before == ""
        else:
            assert fits
            assert not more or len(matcher.ids) == MOST or fits(text_before)


class _Driven:
    """A random answer under a constraint that begins with a text."""

    def __init__(self, constraint: Constraint, begun: str) -> None:
        base, end = speller()
        self.tokenizer, self.end, self.ids = base.tokenizer, end, []
        self.matcher = grammars_of(base.tokenizer, frozenset({end}), base.model.config.vocab_size).matcher(constraint)
        self.vocabulary = base.model.config.vocab_size
        for token in self.tokenizer(begun, add_special_tokens=False)["input_ids"]:
            assert self.matcher.accept(token)
            self.ids.append(token)

    def answer(self, seed: int) -> str:
        draw = random.Random(seed)
        bits_1W = torch.zeros(1, -(-self.vocabulary // 32), dtype=torch.int32)
        while len(self.ids) < MOST:
            self.matcher.fill(bits_1W, 0)
            allowed = [token for token in range(self.vocabulary) if bits_1W[0, token // 32] >> token % 32 & 1]
            token = self.end if self.end in allowed and draw.random() < 0.3 else draw.choice(allowed)
            assert self.matcher.accept(token)
            if token == self.end:
                break
            self.ids.append(token)
        return str(self.tokenizer.decode(self.ids))


def read_call(said: str) -> tuple[str, str, str]:
    reader = CallReader([name for name, _ in FUNCTIONS])
    parts = [*reader.add(said), *reader.end()]
    return tuple("".join(getattr(part, field) for part in parts) for field in ("text", "name", "arguments"))  # type: ignore[return-value]


def test_text_may_come_before_a_call_and_nothing_after_it() -> None:
    base, end = speller()
    matcher = grammars_of(base.tokenizer, frozenset({end}), base.model.config.vocab_size).matcher(
        Constraint(calls=FUNCTIONS)
    )
    tokens = base.tokenizer("one <tool<tool_call>", add_special_tokens=False)["input_ids"]
    assert all(matcher.accept(token) for token in tokens)
    assert not matcher.accept(end)  # a call that has begun is not text any more
    rest = base.tokenizer('\n{"name": "save", "arguments": {"n": 7}}\n</tool_call>', add_special_tokens=False)[
        "input_ids"
    ]
    assert all(matcher.accept(token) for token in rest)
    assert not matcher.accept(base.tokenizer("a", add_special_tokens=False)["input_ids"][0])
    assert matcher.accept(end)


@given(choices=st.lists(texts.filter(bool), min_size=1, max_size=4).map(tuple), seed=st.integers(0, 5))
def test_an_answer_is_one_of_the_choices(choices: tuple[str, ...], seed: int) -> None:
    (completion,) = engine().generate([asked(Constraint(choices=choices), seed)])
    assert completion.finished
    assert text(completion) in choices


@pytest.mark.parametrize("regex", [r"\d{4}-\d{2}", "(yes|no)( maybe)?", "[a-zé☃]{3,5}!", "a+b"])
def test_an_answer_matches_its_expression_from_end_to_end(regex: str) -> None:
    for seed in range(4):
        (completion,) = engine().generate([asked(Constraint(regex=regex), seed)])
        assert re.match(regex, text(completion))
        assert not completion.finished or re.fullmatch(regex, text(completion))


def test_a_json_object_may_hold_anything() -> None:
    completions = engine().generate([asked(Constraint(json_object=True), seed) for seed in range(12)])
    finished = [completion for completion in completions if completion.finished]
    assert finished
    for completion in finished:
        assert isinstance(json.loads(text(completion)), dict)


@pytest.mark.parametrize("kind", ["schema", "json_object"])
def test_json_holds_at_most_one_blank_between_two_parts(kind: str) -> None:
    schema = {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2}, "minItems": 3}
    constraint = Constraint(schema=json.dumps(schema)) if kind == "schema" else Constraint(json_object=True)
    texts = [text(one) for one in engine().generate([asked(constraint, seed) for seed in range(12)])]
    outside = [re.sub(r'"(\\.|[^"\\])*("|$)', '""', said) for said in texts]  # strings may hold as many as they like
    assert any(re.search(r"\s", said) for said in outside)
    assert not any(re.search(r"\s\s", said) for said in outside)


def test_rows_beside_a_constrained_one_are_answered_as_alone() -> None:
    constraints = [None, Constraint(choices=("one", "two")), None, Constraint(regex="[0-9]{8}")]
    requests = [asked(constraint, seed, max_new=12, top_logprobs=2) for seed, constraint in enumerate(constraints)]
    together = engine().generate(requests)
    alone = [engine().generate([request])[0] for request in requests]
    assert [one.ids for one in together] == [one.ids for one in alone]
    free = engine().generate([replace(requests[3], constraint=None)])[0]
    assert free.ids != together[3].ids
    # the model's own distribution: what is likeliest there is no digit
    assert dict(together[3].likeliest[0]) == pytest.approx(dict(free.likeliest[0]), abs=1e-4)
    assert together[3].log_probabilities[0] < together[3].likeliest[0][0][1]


def test_stops_streams_and_long_prompts_go_with_it() -> None:
    request = asked(Constraint(regex="[0-9]{8}"), stream=True)
    request = replace(request, ids=tuple(range(30, 90)))
    here = engine(prefill_tokens=16)
    here.submit(request)
    events = []
    while here.in_flight:
        events += here.step()
    *tokens, completion = events
    assert isinstance(completion, Completion)
    assert "".join(token.text for token in tokens if not isinstance(token, Completion)) == text(completion)
    assert re.fullmatch("[0-9]{8}", text(completion))


def test_no_special_token_spells_a_text_and_the_end_comes_only_where_it_may() -> None:
    base, end = speller()
    start, tool = (base.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[1:])
    matcher = grammars_of(base.tokenizer, frozenset({end}), base.model.config.vocab_size).matcher(
        Constraint(choices=(SPECIAL[1] + "a", SPECIAL[0], SPECIAL[2]))
    )
    assert not matcher.accept(start)
    assert not matcher.accept(end)
    assert matcher.accept(tool)
    assert not matcher.accept(tool)
    assert matcher.accept(end)


def test_what_cannot_be_spelled_is_cut() -> None:
    """A grammar whose next letter no token has: nothing is said that does not fit."""
    base, end = speller()
    letters = base.tokenizer.get_vocab()
    small = replace_vocabulary(base.tokenizer, {token for token in letters if token != "7"})
    here = Engine(replace(base, tokenizer=small), frozenset({end}))
    (completion,) = here.generate([asked(Constraint(regex="67"))])
    assert (text(completion), completion.finished) == ("6", False)


def replace_vocabulary(tokenizer: Any, tokens: set[str]) -> Any:
    import copy

    small = copy.deepcopy(tokenizer)
    whole = tokenizer.get_vocab()
    small.get_vocab = lambda: {token: number for token, number in whole.items() if token in tokens}
    return small


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({}, "0 kinds"),
        ({"calls": (("f", "{}"),), "regex": "a", "json_object": True}, "2 kinds"),
        ({"regex": "a", "json_object": True}, "2 kinds"),
        ({"choices": ("a", "")}, "an empty choice"),
        ({"regex": "a" * 70_000}, "70,000 letters"),
    ],
)
def test_a_constraint_that_means_nothing_is_refused(constraint: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"constraint: .*{said}"):
        Constraint(**constraint)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"regex": "("}, "not a regular expression"),
        ({"regex": "((a{1,1000}){1,1000}){1,1000}"}, "not a regular expression"),
        ({"schema": "{"}, "not JSON"),
        ({"schema": "[" * 30_000}, "not JSON"),
        ({"schema": '{"type": "color"}'}, "not a JSON schema"),
        ({"schema": '{"type": "string", "pattern": "("}'}, "is not a 'regex'"),
        ({"schema": '{"type": "string", "pattern": "(?=a)b"}'}, "not a regular expression"),
        ({"schema": '{"type": "array", "uniqueItems": true}'}, "'uniqueItems'"),
        ({"schema": '{"type": "object", "properties": {"a": {"not": {}}}}'}, "'not'"),
        ({"schema": '{"enum": ["abcd"], "maxLength": 3}'}, "an enum of which no value fits"),
        ({"schema": '{"type": "string", "pattern": "a*b*", "maxLength": 3}'}, "a length beside a 'pattern'"),
        ({"schema": '{"type": "string", "pattern": "^(ab)*$", "maxLength": 3}'}, "a length beside a 'pattern'"),
        ({"schema": '{"type": "string", "pattern": "^\\"$"}'}, "a pattern with quotes"),
        ({"schema": '{"type": "integer", "multipleOf": 5, "minimum": 0}'}, "give both minimum and maximum"),
        ({"schema": '{"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1}'}, "without rounding"),
        ({"schema": '{"oneOf": [{"type": "integer"}, {"type": "number"}]}'}, "options 1 and 2 of 'oneOf'"),
        ({"schema": '{"allOf": [{"type": "string"}, {"type": "null"}]}'}, "no answer fits"),
        ({"schema": '{"$ref": "#/$defs/x"}'}, "leads nowhere"),
        ({"schema": '{"allOf": [{"$ref": "#"}, {"type": "null"}]}'}, "refers to itself"),
        ({"schema": '{"maximum": 3}'}, "without a type"),
        ({"schema": '{"$ref": "https://example.com/x.json"}'}, "leads out of the schema"),
        ({"schema": '{"allOf": [{"prefixItems": [true]}, {"items": {}}]}'}, "'prefixItems' in one of several"),
        ({"schema": '{"type": "integer", "minimum": 3, "maximum": 2}'}, "cannot be used"),
        ({"schema": "false"}, "cannot be used"),
    ],
)
def test_what_answers_cannot_be_held_to_is_refused_in_one_line(constraint: dict[str, str], said: str) -> None:
    here = engine()
    with pytest.raises(InputError, match=said) as caught:
        here.submit(asked(Constraint(**constraint)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert here.in_flight == 0


def test_a_schema_that_doubles_at_every_reference_is_refused() -> None:
    steps = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schema = {"$defs": {**steps, "d60": {"type": "string"}}, "enum": [1, 2], "$ref": "#/$defs/d0"}
    for text in (
        schema,
        {"$defs": schema["$defs"], "allOf": [{"$ref": "#/$defs/d0"}, {"anyOf": [{"$ref": "#/$defs/d0"}]}]},
    ):
        with pytest.raises(InputError, match="unfolds into more than"):
            engine().submit(asked(Constraint(schema=json.dumps(text))))


def test_one_that_takes_too_much_to_prepare_is_refused_and_the_next_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    base, end = speller()
    monkeypatch.setattr(room, "WALL_SECONDS", 0.3)
    grammars = room.Grammars(base.tokenizer, frozenset({end}), base.model.config.vocab_size)
    large = json.dumps({"type": "object", "properties": {f"k{n}": {"type": "string"} for n in range(1500)}})
    for _ in range(2):
        with pytest.raises(InputError, match="takes more than"):
            grammars.matcher(Constraint(schema=large))
    monkeypatch.setattr(room, "WALL_SECONDS", 60.0)
    fresh = room.Grammars(base.tokenizer, frozenset({end}), base.model.config.vocab_size)
    assert fresh.matcher(Constraint(choices=("a",))) is not None


def test_a_grammar_that_takes_too_long_over_an_answer_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MATCHING_SECONDS", 0.0)
    (completion,) = engine().generate([asked(Constraint(regex="((a*)*)*b"))])
    assert (completion.ids, completion.finished) == ((), False)


def test_each_constraint_is_compiled_once_for_a_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Constraint] = []
    compiled = room.Grammars._compiled

    def counted(self: room.Grammars, constraint: Constraint) -> Any:
        made.append(constraint)
        return compiled(self, constraint)

    monkeypatch.setattr(room.Grammars, "_compiled", counted)
    own = Constraint(choices=("never asked before", "nor this"))
    engine().prepare(own)
    engine().generate([asked(own, seed) for seed in range(3)])
    assert made == [own]


def test_without_the_library_the_message_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    base, _ = speller()
    with pytest.raises(PackageError, match=r"pip install 'trimtab\[structured\]'"):
        room.Grammars(base.tokenizer, frozenset({3}), base.model.config.vocab_size)
    assert "xgrammar" not in sys.modules or engine().generate([asked(None)])


def test_an_end_token_is_needed() -> None:
    with pytest.raises(InputError, match="without an end token"):
        Engine(speller()[0], frozenset()).submit(asked(Constraint(json_object=True)))
