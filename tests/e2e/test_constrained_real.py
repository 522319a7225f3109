"""The real small model, held to a schema, a choice and an expression; its tokenizer has thousands of tokens that
cross their seams."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from trimtab.inference.constraints import Constraint
from trimtab.inference.engine import Completion, Engine, Request
from trimtab.model.catalog import resolve
from trimtab.model.load import Base, load_base

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "people": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
        "tags": {"type": "array", "items": {"enum": ["sea", "river", "hills"]}, "maxItems": 2},
    },
    "required": ["city", "people", "tags"],
}


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(resolve("smollm2-135m-q4"), "fp32")


def asked(base: Base, name: str, constraint: Constraint) -> Request:
    turns = [{"role": "user", "content": "Tell me about Paris as JSON: city, people, tags."}]
    ids = base.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return Request(id=name, ids=tuple(ids), max_new=120, constraint=constraint)


def test_answers_of_all_kinds_fit(base: Base) -> None:
    constraints = {
        "schema": Constraint(schema=json.dumps(SCHEMA)),
        "choices": Constraint(choices=("Lyon", "Paris", "Paris, France")),
        "regex": Constraint(regex=r"In \d{4}, [A-Z][a-z]{3,9}\."),
    }
    engine = Engine(base, frozenset({base.tokenizer.eos_token_id}))
    completions = engine.generate([asked(base, name, constraint) for name, constraint in constraints.items()])

    def text(completion: Completion) -> str:
        return str(base.tokenizer.decode(list(completion.ids)))

    assert all(completion.finished for completion in completions)
    schema, choice, expression = map(text, completions)
    assert list(Draft202012Validator(SCHEMA).iter_errors(json.loads(schema))) == []
    assert choice in constraints["choices"].choices
    assert re.fullmatch(constraints["regex"].regex, expression)
