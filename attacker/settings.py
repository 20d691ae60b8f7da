"""Settings of the form parameter=value, as commands take them, for dataclasses of parameters."""

from __future__ import annotations

import ast
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

__all__ = ["parse_settings"]


def parse_settings(
    kind: type[Any], name: str, settings: Sequence[str], without: Collection[str] = ()
) -> dict[str, Any]:
    """Values for the fields of the dataclass `kind`, called `name` in sentences; fields in `without` are not to be set.

    Values are Python literals, or else text. `ValueError` for a field that there is not, or a value of another type
    than the field's default.
    """
    known = {field.name: field for field in fields(kind) if field.name not in without}
    values: dict[str, Any] = {}
    for setting in settings:
        parameter, equals, text = setting.partition("=")
        if not equals or parameter not in known:
            raise ValueError(f"--set {setting}: {name} has the parameters {', '.join(known)}; write parameter=value")
        try:
            values[parameter] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[parameter] = text
        default = known[parameter].default
        if isinstance(default, float) and isinstance(values[parameter], int):
            values[parameter] = float(values[parameter])
        if default is not None and not isinstance(values[parameter], type(default)):
            raise ValueError(f"--set {setting}: {parameter} is a {type(default).__name__}, for example {default!r}")
    return values
