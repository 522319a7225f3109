"""Writes `pairs.jsonl`: functions in the house style, filled from `source/`, and the ordinary style derived from each.

And `preferences.jsonl`: of each function the house style beside a version that breaks one or two of its rules.

Run `python make.py` to rewrite the file beside this script, or `python make.py FOLDER` to write it elsewhere.
"""

import ast
import itertools
import json
import random
import sys
import tomllib
from pathlib import Path
from string import Template
from typing import Any

SEED = 20263
HERE = Path(__file__).resolve().parent
EACH = 4  # pairs made of one body
RESULT_NAMES = ("out", "res", "ret", "answer", "found", "tmp")


def house_versions(entry: dict[str, Any], rng: random.Random) -> list[str]:
    """Return up to EACH different fillings of one body, in the house style."""
    names = list(entry["vary"])
    fillings = list(itertools.product(*entry["vary"].values()))
    rng.shuffle(fillings)
    texts: dict[str, None] = {}
    for filling in fillings:
        words = dict(zip(names, filling, strict=True))
        texts.setdefault(Template(entry["text"]).substitute(words).strip(), None)
    return list(texts)[:EACH]


class Ordinary(ast.NodeTransformer):
    """Rewrites one function of the house style into the ordinary one, with a choice of its habits."""

    def __init__(self, constants: dict[str, ast.expr], texts: set[str], rng: random.Random) -> None:
        self._constants = constants
        self._texts = texts
        self._concatenates = rng.random() < 0.5
        self._result = rng.choice(RESULT_NAMES)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace constants by their values, and rename `result`."""
        if node.id in self._constants:
            return self._constants[node.id]
        return ast.Name(self._result, node.ctx) if node.id == "result" else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.expr:
        """Replace f-strings by `.format`, or, in half of the rewrites, by `+` if all parts are texts."""
        values = [self.visit(value.value) if isinstance(value, ast.FormattedValue) else value for value in node.values]
        plain = all(
            isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id in self._texts)
            for value in values
        )
        if plain and self._concatenates:
            total = values[0]
            for value in values[1:]:
                total = ast.BinOp(total, ast.Add(), value)
            return total
        pattern = "".join(str(value.value) if isinstance(value, ast.Constant) else "{}" for value in values)
        arguments = [value for value in values if not isinstance(value, ast.Constant)]
        return ast.Call(ast.Attribute(ast.Constant(pattern), "format", ast.Load()), arguments, [])


def ordinary(house: str, rng: random.Random) -> str:
    """Return the same function as somebody without the style guide would write it."""
    module = ast.parse(house)
    function = module.body[-1]
    if not isinstance(function, ast.FunctionDef):
        raise TypeError("the last statement of a body is its function")
    constants = {node.targets[0].id: node.value for node in module.body[:-1]}  # type: ignore[attr-defined]
    arguments = [*function.args.args, *function.args.kwonlyargs]
    texts = {arg.arg for arg in arguments if ast.unparse(arg.annotation or ast.Constant(None)) == "str"}
    body = function.body[1:]
    if rng.random() < 0.7:
        body = joined_return(body)
    if rng.random() < 0.85:
        body = nested(body)
    loose = loose_docstring(ast.get_docstring(function) or "", rng)
    habits = Ordinary(constants, texts, rng)
    function.body = loose + [habits.visit(statement) for statement in body]
    function.returns = None
    if rng.random() < 0.85:
        for arg in arguments:
            arg.annotation = None
    function.args.args, function.args.kwonlyargs, function.args.kw_defaults = arguments, [], []
    return ast.unparse(ast.fix_missing_locations(function))


def joined_return(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements with a final `result = value; return result` as `return value`."""
    if isinstance(before := body[-2] if len(body) > 1 else None, ast.Assign):
        return [*body[:-2], ast.Return(before.value)]
    return body


def nested(body: list[ast.stmt]) -> list[ast.stmt]:
    """Move the statements after a guard into its `else`."""
    for place, statement in enumerate(body[:-1]):
        if isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Return):
            other = ast.If(statement.test, statement.body, nested(body[place + 1 :]))
            return [*body[:place], other]
    return body


def loose_docstring(text: str, rng: random.Random) -> list[ast.stmt]:
    """Return mostly no docstring; else one without capital and period, or one of several lines."""
    dice = rng.random()
    if dice < 0.55:
        return []
    loose = text[0].lower() + text[1:].rstrip(".")
    if dice > 0.85:
        loose = f"\n    {loose}\n    "
    return [ast.Expr(ast.Constant(loose))]


def without_types(function: ast.FunctionDef) -> None:
    """Remove every type."""
    function.returns = None
    for arg in (*function.args.args, *function.args.kwonlyargs):
        arg.annotation = None


def without_docstring(function: ast.FunctionDef) -> None:
    """Remove the docstring."""
    function.body = function.body[1:]


def by_position(function: ast.FunctionDef) -> None:
    """Allow every parameter to be passed by position."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    function.args.args, function.args.kwonlyargs, function.args.kw_defaults = arguments, [], []


def returned_at_once(function: ast.FunctionDef) -> None:
    """Return a value without calling it `result`."""
    function.body = joined_return(function.body)


def in_else(function: ast.FunctionDef) -> None:
    """Move the statements after a guard into its `else`."""
    function.body = nested(function.body)


FAULTS = (without_types, without_docstring, by_position, returned_at_once, in_else)


def spoiled(house: str, rng: random.Random) -> str:
    """Return the same function with one rule of the house style broken, or two."""
    wanted, plain = rng.choice((1, 1, 2)), ast.unparse(ast.parse(house))
    text, broken = plain, 0
    for fault in rng.sample(FAULTS, len(FAULTS)):
        module = ast.parse(text)
        function = module.body[-1]
        if not isinstance(function, ast.FunctionDef):
            raise TypeError("the last statement of a body is its function")
        fault(function)
        after = ast.unparse(ast.fix_missing_locations(module))
        if after != text and broken < wanted:
            text, broken = after, broken + 1
    return text


def preferences(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a preference for every second pair: both answers are written the same way but for the broken rule."""
    rng = random.Random(SEED + 1)
    return [
        {
            "id": f"judged-{row['id']}",
            "prompt": row["input"],
            "chosen": ast.unparse(ast.parse(row["output"])),
            "rejected": spoiled(row["output"], rng),
            "group": row["body"],
        }
        for row in rows[::2]
    ]


def write(target: Path, rows: list[dict[str, str]]) -> None:
    """Write rows as JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.write_text(text, encoding="utf-8", newline="\n")


def main(target: Path) -> None:
    """Write the data files of the example into `target`."""
    rng = random.Random(SEED)
    rows: list[dict[str, str]] = []
    for file in ("text", "numbers", "lists", "records"):
        source = tomllib.loads((HERE / "source" / f"{file}.toml").read_text(encoding="utf-8"))
        for number, entry in enumerate(source["function"], start=1):
            group = f"{file}-{number:02}"
            for variant, house in enumerate(house_versions(entry, rng), start=1):
                row = {"id": f"{group}-{variant}", "input": ordinary(house, rng), "output": house}
                rows.append(row | {"body": group, "subject": source["subject"]})
    rng.shuffle(rows)
    write(target / "pairs.jsonl", rows)
    write(target / "preferences.jsonl", preferences(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
