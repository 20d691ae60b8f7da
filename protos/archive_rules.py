"""A small grammar for the JSON inside a model archive: rules that rebuild a value from what they understood.

A rule takes a decoded JSON value and gives back a clean copy, or refuses it with a sentence. `record` keeps the
fields that it knows and drops the rest, so what nobody asked for is never handed on.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Callable, Collection
from typing import Any, NoReturn

__all__ = [
    "SYMBOL",
    "Rule",
    "UnsafeArchive",
    "boolean",
    "fixed",
    "identifier",
    "integer",
    "many",
    "matches",
    "maybe",
    "number",
    "one_of",
    "record",
    "refuse",
    "size_expression",
    "table",
    "unexpected",
    "union",
    "words",
]

Rule = Callable[[Any], Any]
MOST_LETTERS = 600  # of a refusal


def words(text: str) -> frozenset[str]:
    """Give the words of a text as a set."""
    return frozenset(text.split())


IDENTIFIER = re.compile(r"(?!__)[A-Za-z_]\w{0,999}", re.ASCII)
SYMBOL = re.compile(r"s\d{1,6}", re.ASCII)
# What a symbolic size may call. No powers and no shifts: a few characters of them fill the memory.
FUNCTIONS = words("Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv CeilToInt FloorToInt TruncToInt ToFloat")
FUNCTIONS |= words("IntTrueDiv FloatTrueDiv ModularIndexing Where Equality Unequality GreaterThan LessThan")
FUNCTIONS |= words("StrictGreaterThan StrictLessThan")

REASONS = {
    "as_graph": "only a graph without branches is loaded: call .run_decompositions() on the exported program first",
    "as_custom_obj": "custom objects are pickles, which can run code",
    "custom_obj": "custom objects are pickles, which can run code",
    "as_operator": "an operator cannot be an argument",
    "buffer_mutation": "a model must not change while it answers: call .eval() on it and export it again",
    "constant_input": "a model takes exactly one tensor",
}


class UnsafeArchive(ValueError):
    """The archive could run code, holds more than a model, or cannot be read: nothing of it was loaded.

    What the archive says of itself is quoted, but not by the page.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence if len(sentence) <= MOST_LETTERS else f"{sentence[: MOST_LETTERS - 3]}...")


def refuse(sentence: str) -> NoReturn:
    """Raise `UnsafeArchive` with this sentence."""
    raise UnsafeArchive(sentence)


def unexpected(value: Any, allowed: str) -> NoReturn:
    """Refuse a value, naming it and what would have been allowed."""
    text = repr(value)
    refuse(f"it says {text if len(text) <= 80 else text[:77] + '...'} where only {allowed} is allowed")


def fixed(result: Any) -> Rule:
    """Give this result whatever the archive says."""
    return lambda _: result


def matches(pattern: re.Pattern[str], allowed: str) -> Rule:
    """Allow a text that the pattern matches as a whole."""

    def rule(value: Any) -> Any:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            unexpected(value, allowed)
        return value

    return rule


def one_of(values: Collection[str | int], allowed: str) -> Rule:
    """Allow these texts or integers."""

    def rule(value: Any) -> Any:
        if type(value) not in (str, int) or value not in values:
            unexpected(value, allowed)
        return value

    return rule


def integer(value: Any) -> Any:
    """Allow an integer of 64 bits."""
    if type(value) is not int or abs(value) >= 2**63:
        unexpected(value, "an integer of 64 bits")
    return value


def boolean(value: Any) -> Any:
    """Allow true and false."""
    if type(value) is not bool:
        unexpected(value, "true or false")
    return value


def number(value: Any) -> Any:
    """Allow a finite number, and infinities and NaN as the texts that the exporter writes for them."""
    if isinstance(value, str) and value in ("Infinity", "-Infinity", "NaN"):
        return value
    if type(value) is int:
        return float(integer(value))
    if type(value) is not float or not math.isfinite(value):
        unexpected(value, "a number")
    return value


def identifier(value: Any) -> Any:
    """Allow a plain name: names become part of the source of the module's `forward`."""
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value) or keyword.iskeyword(value):
        unexpected(value, "a plain name")
    return value


def maybe(rule: Rule) -> Rule:
    """Allow null besides."""
    return lambda value: None if value is None else rule(value)


def many(rule: Rule) -> Rule:
    """Allow a list of such values."""

    def list_of(value: Any) -> Any:
        if not isinstance(value, list):
            unexpected(value, "a list")
        return [rule(item) for item in value]

    return list_of


def table(key: Rule, rule: Rule) -> Rule:
    """Allow a table from such names to such values."""

    def table_of(value: Any) -> Any:
        if not isinstance(value, dict):
            unexpected(value, "a table")
        return {key(name): rule(item) for name, item in value.items()}

    return table_of


def record(**fields: Rule) -> Rule:
    """Keep these fields of a table and drop the others; a missing one counts as null."""

    def record_of(value: Any) -> Any:
        if not isinstance(value, dict):
            unexpected(value, "a table")
        return {name: rule(value.get(name)) for name, rule in fields.items()}

    return record_of


def union(**kinds: Rule) -> Rule:
    """Allow a table with exactly one entry, whose name is one of these kinds."""

    def one_kind(value: Any) -> Any:
        if not isinstance(value, dict) or len(value) != 1:
            unexpected(value, "one of " + ", ".join(kinds))
        ((kind, content),) = value.items()
        if kind not in kinds:
            refuse(f"its graph holds {kind!r}, and {REASONS.get(kind, 'a plain model has no such thing')}")
        return {kind: kinds[kind](content)}

    return one_kind


def size_expression(value: Any) -> Any:
    """Allow integer arithmetic on the sizes `s0`, `s1`, ..., written anew from its tree: sympy evaluates this text.

    Both spellings of the exporter are known: `Mul(Integer(2), Symbol('s0', positive=True, integer=True))` and `2*s0`.
    """
    if not isinstance(value, str) or len(value) > 1000:
        unexpected(value, "a symbolic size")
    try:
        tree = ast.parse(value.strip(), mode="eval").body
        allowed = _is_arithmetic(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        allowed = False
    if not allowed:
        unexpected(value, "arithmetic on the sizes s0, s1, ...")
    return ast.unparse(tree)


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int(value)):  # True and False are integers too
            return abs(value) < 2**63
        case ast.Name(id=name):
            return bool(SYMBOL.fullmatch(name))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _is_arithmetic(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv() | ast.Mod(), right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=flags):
            known = all(flag.arg in ("positive", "integer", "nonnegative") for flag in flags)
            true = all(isinstance(flag.value, ast.Constant) and flag.value.value is True for flag in flags)
            return bool(SYMBOL.fullmatch(name)) and known and true
        case ast.Call(func=ast.Name(id="Integer"), args=[(ast.Constant() | ast.UnaryOp()) as value], keywords=[]):
            return _is_arithmetic(value)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in FUNCTIONS and all(_is_arithmetic(argument) for argument in arguments)
    return False
