"""Scores answers by the house style of this example: JSON lines in, JSON lines out, one at a time.

A line `{"id", "input", "reference", "answer"}` is answered by `{"id", "score"}`, 0 to 1: the share of the seven rules that the answer
obeys, times how much of the behaviour is kept. The answer is parsed, never run. Whether behaviour is kept is decided by comparing the
syntax trees of answer and reference after what may differ has been taken out (see `canonical`): equal trees count 1, others at most a half.
"""

import ast
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from io import TextIOWrapper
from typing import Any

LONGEST = 20_000  # characters of an answer that are still looked at
PLAIN_NUMBERS = (0, 1, 2, 100)
UPPER = re.compile(r"[A-Z][A-Z0-9_]*")


def parse(code: str) -> tuple[ast.Module, ast.FunctionDef] | None:
    """Return the module and its one function, or None if the text is anything but constants and one function."""
    fenced = re.search(r"```[a-z]*\n(.*?)(?:```|\Z)", code, re.DOTALL)
    text = fenced[1] if fenced else code
    if len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape in an answer is no fault of ours
            module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1 or not all(isinstance(node, ast.FunctionDef | ast.Assign) for node in module.body):
        return None
    return module, functions[0]


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    """Return all parameters in their order."""
    inner = function.args
    packed = [arg for arg in (inner.vararg, inner.kwarg) if arg is not None]
    return [*inner.posonlyargs, *inner.args, *inner.kwonlyargs, *packed]


def has_type_hints(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if every parameter and the result have a type."""
    return function.returns is not None and all(arg.annotation is not None for arg in parameters(function))


def has_docstring(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if there is a docstring of one line that starts with a capital and ends with a period."""
    text = ast.get_docstring(function, clean=False)
    return text is not None and "\n" not in text and text[:1].isupper() and text.endswith(".")


def has_keyword_only(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if parameters after the first are keyword-only."""
    return len(function.args.posonlyargs) + len(function.args.args) <= 1 and function.args.vararg is None


def has_guards(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if there is no `else` or `elif`."""
    return not any(getattr(node, "orelse", None) for node in ast.walk(function) if isinstance(node, ast.stmt))


def ends_with_result(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if the last statement is `return result`."""
    last = function.body[-1]
    return isinstance(last, ast.Return) and isinstance(last.value, ast.Name) and last.value.id == "result"


def has_f_strings_only(_: ast.Module, function: ast.FunctionDef) -> bool:
    """True if no text is built with `+`, `%` or `.format`."""
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr == "format":
            return False
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            sides = (node.left, node.right) if isinstance(node.op, ast.Add) else (node.left,)
            if any(is_text(side) for side in sides):
                return False
    return True


def has_named_numbers(module: ast.Module, function: ast.FunctionDef) -> bool:
    """True if numbers other than 0, 1, 2 and 100 are named constants in upper case above the function."""
    names = [target for node in module.body if isinstance(node, ast.Assign) for target in node.targets]
    if not all(isinstance(name, ast.Name) and UPPER.fullmatch(name.id) for name in names):
        return False
    numbers = [node.value for node in ast.walk(function) if isinstance(node, ast.Constant)]
    return all(number in PLAIN_NUMBERS for number in numbers if isinstance(number, int | float))


RULES: tuple[Callable[[ast.Module, ast.FunctionDef], bool], ...] = (
    has_type_hints,
    has_docstring,
    has_keyword_only,
    has_guards,
    ends_with_result,
    has_f_strings_only,
    has_named_numbers,
)


def is_text(node: ast.AST) -> bool:
    """True if the expression is a literal text, f-strings included."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def canonical(module: ast.Module, function: ast.FunctionDef) -> list[str]:
    """Return the function as a list of tree nodes, without what the style is free to change.

    Left out: docstring, annotations, the mark for keyword-only, the names of locals, `else` after a return, a variable that is only
    returned, constants above the function, and how a text is put together.
    """
    constants: dict[str, ast.expr] = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    docstring = ast.get_docstring(function, clean=False) is not None
    names = {arg.arg: arg.arg for arg in parameters(function)}
    head = [function.name, *names, *(ast.dump(node) for node in defaults(function))]
    body = flat(function.body[1:] if docstring else function.body)
    return head + [part for statement in body for part in tokens(statement, constants, names)]


def defaults(function: ast.FunctionDef) -> list[ast.expr]:
    """Return default values in the order of their parameters."""
    return [*function.args.defaults, *(node for node in function.args.kw_defaults if node is not None)]


def flat(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements with `else` after a return unfolded and `x = value; return x` joined."""
    result: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, ast.If):
            inner, other = flat(statement.body), flat(statement.orelse)
            leaves = isinstance(inner[-1], ast.Return)
            result.append(ast.If(test=statement.test, body=inner, orelse=[] if leaves else other))
            result += other if leaves else []
        elif isinstance(statement, ast.For):
            inner, other = flat(statement.body), flat(statement.orelse)
            result.append(ast.For(target=statement.target, iter=statement.iter, body=inner, orelse=other))
        elif isinstance(statement, ast.While):
            result.append(ast.While(test=statement.test, body=flat(statement.body), orelse=flat(statement.orelse)))
        else:
            result.append(statement)
    if len(result) >= 2 and isinstance(last := result[-1], ast.Return) and isinstance(last.value, ast.Name):
        before = result[-2]
        if isinstance(before, ast.Assign) and ast.unparse(before.targets[0]) == last.value.id:
            result[-2:] = [ast.Return(value=before.value)]
    return result


def tokens(node: ast.AST, constants: dict[str, ast.expr], names: dict[str, str]) -> Iterator[str]:
    """Yield the nodes of one tree in reading order; `names` collects the locals in order of appearance."""
    parts = text_parts(node)
    if parts is not None:
        yield "text("
        for part in parts:
            yield from [part] if isinstance(part, str) else tokens(part, constants, names)
        yield ")"
    elif isinstance(node, ast.Name):
        if node.id in constants:
            yield from tokens(constants[node.id], {}, names)
        else:
            assigned = isinstance(node.ctx, ast.Store) and node.id not in names
            yield names.setdefault(node.id, f"local-{len(names)}") if assigned else names.get(node.id, node.id)
    elif isinstance(node, ast.Constant):
        yield repr(node.value)
    else:
        yield f"{type(node).__name__}("
        for name, value in fields_in_order(node):
            for child in value if isinstance(value, list) else [value]:
                yield from tokens(child, constants, names) if isinstance(child, ast.AST) else [f"{name}={child}"]
        yield ")"


def fields_in_order(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the fields, those first that bind names which the others use (`for` in a comprehension)."""
    fields = [pair for pair in ast.iter_fields(node) if pair[0] not in ("type_comment", "ctx")]
    yield from sorted(fields, key=lambda pair: pair[0] != "generators")


def text_parts(node: ast.AST) -> list[str | ast.expr] | None:
    """Return the pieces of a text built by an f-string, `.format` or `+`; None for any other expression."""
    parts: list[str | ast.expr] = []
    if isinstance(node, ast.JoinedStr):
        for value in node.values:
            plain = isinstance(value, ast.FormattedValue) and value.format_spec is None and value.conversion == -1
            parts.append(value.value if plain and isinstance(value, ast.FormattedValue) else value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        source = node.func.value
        if not (isinstance(source, ast.Constant) and isinstance(source.value, str)) or node.keywords:
            return None
        literals = source.value.split("{}")
        if len(literals) != len(node.args) + 1:
            return None
        parts = [
            piece
            for pair in zip(map(ast.Constant, literals), [*node.args, ast.Constant("")], strict=True)
            for piece in pair
        ]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [text_parts(side) for side in (node.left, node.right)]
        if not (any(sides) or is_text(node.left) or is_text(node.right)):
            return None
        for side, inner in zip((node.left, node.right), sides, strict=True):
            parts += inner or [without_str(side)]
    else:
        return None
    return merged(parts)


def without_str(node: ast.expr) -> ast.expr:
    """Return `x` for `str(x)`."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str"
    return node.args[0] if is_call and isinstance(node, ast.Call) and len(node.args) == 1 else node


def merged(parts: list[str | ast.expr]) -> list[str | ast.expr]:
    """Return the pieces with neighbouring literals joined and empty ones left out."""
    result: list[str | ast.expr] = []
    for part in parts:
        literal = part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else part
        if isinstance(literal, str) and result and isinstance(result[-1], str):
            result[-1] += literal
        elif literal != "":
            result.append(literal)
    return result


def score(answer: str, reference: str) -> float:
    """Return 0 if the answer does not parse, else the share of rules obeyed times the share of behaviour kept."""
    wanted, given = parse(reference), parse(answer)
    if wanted is None or given is None:
        return 0.0
    obeyed = sum(rule(*given) for rule in RULES) / len(RULES)
    try:
        mine, theirs = canonical(*given), canonical(*wanted)
    except (RecursionError, ValueError):  # nested too deep, or a number too long to write out
        return 0.0
    kept = 1.0 if mine == theirs else 0.5 * SequenceMatcher(None, mine[:2000], theirs, autojunk=False).ratio()
    return round(obeyed * kept, 6)


def answer_line(line: str) -> dict[str, Any] | None:
    """Return the output for one input line; None if the line names no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or "id" not in row:
        return None
    reference = row.get("reference")
    references = [item for item in (reference if isinstance(reference, list) else [reference]) if isinstance(item, str)]
    answer = row.get("answer")
    scores = [score(answer, item) for item in references] if isinstance(answer, str) else []
    return {"id": row["id"], "score": max(scores, default=0.0)}


def main() -> None:
    """Score answers line by line until the input ends."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    for line in sys.stdin:
        reply = answer_line(line)
        if reply is None:
            print("score.py: a line that is not an object with an id was skipped", file=sys.stderr, flush=True)
        else:
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
