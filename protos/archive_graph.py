"""What the graph inside a model archive may say.

`torch.export.load` turns several texts of `models/model.json` into running code: symbolic sizes go through
`sympy.sympify`, guards through `exec`, names into the source of the module's `forward`, tree specifications into
imports, targets into a chain of `getattr`. Nothing of the file is therefore handed on as it came: `clean_program`
reads it against the closed grammar below and writes a new program that holds only what it understood. Names are
identifiers, sizes are integer arithmetic, targets are aten operators from plain values to tensors, the tree is one
tensor in and one tensor out, and whatever has no bearing on the answer (stack traces, module names, guards, the
device of the machine that wrote it) is left out.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import torch

from protos.archive_rules import (
    SYMBOL,
    boolean,
    fixed,
    identifier,
    integer,
    many,
    matches,
    maybe,
    number,
    one_of,
    record,
    refuse,
    size_expression,
    table,
    unexpected,
    union,
    words,
)

__all__ = ["DTYPES", "STORED", "Program", "Tensor", "clean_program"]

DTYPES = {  # the exporter's number of a scalar type
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}

OPERATOR = re.compile(r"torch\.ops\.aten\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)", re.ASCII)
VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?", re.ASCII)

# Arithmetic on sizes. No powers and no shifts: a few characters of them fill the memory.
ARITHMETIC = {f"_operator.{name}" for name in words("eq ne le ge lt gt neg pos mul add sub floordiv mod truediv")}
ARITHMETIC |= {f"torch.sym_{name}" for name in words("int float max min not ite")} | {"math.trunc"}
# Operators take plain values and give tensors; the few of the second line give a size or nothing.
PLAIN = re.compile(r"(Optional\[|List\[)*(Tensor|number|int|float|bool|str|Device|Generator)\]*")
NO_TENSOR = words("sym_size sym_stride sym_numel _assert_tensor_metadata")
# An underscore marks torch's inner operators, which trust their arguments: only those of the core set, and these.
INNER = words("__and__ __or__ __xor__ _weight_norm _unsafe_view _assert_tensor_metadata")
# These reach files, other storages, or memory that nobody has written yet.
REFUSED = words("from_file set set_ resize resize_ resize_as resize_as_ requires_grad_ empty empty_like empty_strided")
REFUSED |= words("empty_permuted empty_quantized new_empty new_empty_strided")
# The texts that operators take: names of modes, and the equation of einsum.
MODES = words("none tanh floor trunc valid same constant reflect replicate circular ij xy sum mean prod amax amin")
MODES |= words("left right linear lower higher nearest midpoint backward forward ortho fro nuc")
EQUATION = re.compile(r"[A-Za-z,.\-> ]{1,200}")

LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
ARGUMENTS = {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF]}
NO_KEYWORDS = {"type": "builtins.dict", "context": "[]", "children_spec": []}
ONE_INPUT = [1, {"type": "builtins.tuple", "context": "null", "children_spec": [ARGUMENTS, NO_KEYWORDS]}]
ONE_OUTPUT = [1, LEAF]


class Tensor(NamedTuple):
    """A tensor that the graph is given besides its input."""

    name: str
    constant: bool  # lies in data/constants, as against data/weights


class Program(NamedTuple):
    """A program that holds nothing but what was understood."""

    json: dict[str, Any]
    tensors: list[Tensor]  # in the order of the graph's inputs
    torch_version: str
    input_shape: tuple[int | None, ...]  # None where any size goes
    output_shape: tuple[int | None, ...]
    dtype: torch.dtype


def _target(value: Any) -> Any:
    if not isinstance(value, str):
        unexpected(value, "the name of an operator")
    if value in ARITHMETIC:
        return value
    found = OPERATOR.fullmatch(value)
    if not found or not _is_plain(found[1], found[2]):
        unexpected(value, "an aten operator from plain values to tensors (.run_decompositions() may turn it into some)")
    return value


def _is_plain(name: str, overload: str) -> bool:
    operator = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if name in REFUSED or not isinstance(operator, torch._ops.OpOverload):
        return False
    if name.startswith("_") and name not in INNER and torch.Tag.core not in operator.tags:
        return False
    takes = [str(argument.type) for argument in operator._schema.arguments]
    gives = [str(result.type) for result in operator._schema.returns]
    tensors = bool(gives) and all(result in ("Tensor", "List[Tensor]") for result in gives)
    return all(PLAIN.fullmatch(argument) for argument in takes) and (tensors or name in NO_TENSOR)


def _calls(value: Any) -> Any:
    """Keep the call of the whole module alone, which must be one tensor in and one tensor out."""
    try:
        signature = value[0]["signature"]
        one_to_one = (json.loads(signature["in_spec"]), json.loads(signature["out_spec"])) == (ONE_INPUT, ONE_OUTPUT)
    except (LookupError, TypeError, ValueError):
        one_to_one = False
    if not one_to_one:
        refuse("a model must take exactly one positional tensor and return exactly one: wrap it and export it again")
    specs = {"in_spec": json.dumps(ONE_INPUT), "out_spec": json.dumps(ONE_OUTPUT)}
    return [{"fqn": "", "signature": {"inputs": [], "outputs": [], "forward_arg_names": ["x"], **specs}}]


def _version(value: Any) -> Any:
    """Give a torch version without its build; refuse one newer than the torch that runs here."""
    found = VERSION.match(value) if isinstance(value, str) and len(value) <= 100 else None
    here = VERSION.match(torch.__version__)
    if not found or not here:
        unexpected(value, "the version of torch that wrote the archive")
    if (int(found[1]), int(found[2])) > (int(here[1]), int(here[2])):
        refuse(f"torch {found[0]} wrote it and torch {here[0]} runs here: install torch {found[1]}.{found[2]} or newer")
    return found[0]


SIZE = union(as_expr=record(expr_str=size_expression, hint=maybe(union(as_int=integer))), as_int=integer)
TRUTH = union(as_expr=record(expr_str=size_expression, hint=maybe(union(as_bool=boolean))), as_bool=boolean)
REAL = union(as_expr=record(expr_str=size_expression, hint=maybe(union(as_float=number))), as_float=number)
DTYPE = one_of(DTYPES, "the number of a plain scalar type")
DEVICE = fixed({"type": "cpu", "index": None})
LAYOUT = one_of({7}, "the strided layout")
META = record(
    dtype=DTYPE,
    sizes=many(SIZE),
    requires_grad=fixed(False),
    device=DEVICE,
    strides=many(SIZE),
    storage_offset=SIZE,
    layout=LAYOUT,
)
NAMED = record(name=identifier)
TENSOR = union(as_tensor=NAMED)
SYM_INT = union(as_name=identifier, as_int=integer)
SYM_FLOAT = union(as_name=identifier, as_float=number)
SYM_BOOL = union(as_name=identifier, as_bool=boolean)
ARGUMENT = union(
    as_none=fixed(True),
    as_tensor=NAMED,
    as_tensors=many(NAMED),
    as_optional_tensors=many(union(as_tensor=NAMED, as_none=fixed(True))),
    as_int=integer,
    as_ints=many(integer),
    as_float=number,
    as_floats=many(number),
    as_bool=boolean,
    as_bools=many(boolean),
    as_string=matches(EQUATION, "a plain word"),
    as_sym_int=SYM_INT,
    as_sym_ints=many(SYM_INT),
    as_sym_float=SYM_FLOAT,
    as_sym_floats=many(SYM_FLOAT),
    as_sym_bool=SYM_BOOL,
    as_sym_bools=many(SYM_BOOL),
    as_scalar_type=DTYPE,
    as_memory_format=one_of({1, 2, 3, 4}, "a memory format"),
    as_layout=LAYOUT,
    as_device=DEVICE,
)
NODE = record(
    target=_target,
    inputs=many(
        record(
            name=matches(re.compile(r"([A-Za-z_]\w{0,99})?", re.ASCII), "the name of an argument"),
            arg=ARGUMENT,
            kind=maybe(one_of({0, 1, 2}, "positional or keyword")),
        )
    ),
    outputs=many(ARGUMENT),
    metadata=fixed({}),
    name=maybe(identifier),
)
# The components may be numbers, as in a Sequential, but nothing that ends a string or is special to Python.
ATTRIBUTE = matches(re.compile(r"(?!__)\w+(\.(?!__)\w+)*", re.ASCII), "the name of a parameter")
INPUT_SPEC = union(
    user_input=record(arg=TENSOR),
    parameter=record(arg=NAMED, parameter_name=ATTRIBUTE),
    buffer=record(arg=NAMED, buffer_name=ATTRIBUTE, persistent=boolean),
    tensor_constant=record(arg=NAMED, tensor_constant_name=ATTRIBUTE),
)
GRAPH = record(
    inputs=many(TENSOR),
    outputs=many(TENSOR),
    nodes=many(NODE),
    tensor_values=table(identifier, META),
    sym_int_values=table(identifier, SIZE),
    sym_bool_values=table(identifier, TRUTH),
    sym_float_values=table(identifier, REAL),
    custom_obj_values=fixed({}),
    is_single_tensor_return=fixed(False),
)
PROGRAM = record(
    graph_module=record(
        graph=GRAPH,
        signature=record(input_specs=many(INPUT_SPEC), output_specs=many(union(user_output=record(arg=TENSOR)))),
        module_call_graph=_calls,
        metadata=fixed({}),
    ),
    opset_version=record(aten=integer),
    range_constraints=table(
        matches(SYMBOL, "a size s0, s1, ..."), record(min_val=maybe(integer), max_val=maybe(integer))
    ),
    schema_version=record(major=integer, minor=integer),
    verifiers=many(one_of({"TRAINING", "ATEN"}, "a dialect of torch.export")),
    torch_version=_version,
    guards_code=fixed([]),
)
# An entry of data/weights/model_weights_config.json or data/constants/model_constants_config.json.
STORED = record(
    path_name=matches(re.compile(r"(weight|tensor)_\d{1,6}", re.ASCII), "the name of an entry with raw numbers"),
    is_param=boolean,
    use_pickle=boolean,
    tensor_meta=META,
)


def clean_program(content: Any) -> Program:
    """Check the decoded `models/model.json` and write it anew.

    Raises:
        UnsafeArchive: it says something that is not allowed, in one sentence.
    """
    torch_version = _version(content.get("torch_version") if isinstance(content, dict) else None)
    program = PROGRAM(content)
    module = program["graph_module"]
    for node in module["graph"]["nodes"]:
        for argument in node["inputs"]:
            word = argument["arg"].get("as_string", "none")
            if word not in MODES and node["target"] != "torch.ops.aten.einsum.default":
                unexpected(word, "the name of a mode")
    specs, values = module["signature"]["input_specs"], module["graph"]["tensor_values"]
    inputs = [spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "user_input" in spec]
    outputs = [spec["user_output"]["arg"]["as_tensor"]["name"] for spec in module["signature"]["output_specs"]]
    if len(inputs) != 1 or len(outputs) != 1 or not {inputs[0], outputs[0]} <= set(values):
        refuse("its graph does not map one tensor to one tensor: wrap the model and export it again")
    return Program(
        json=program,
        tensors=[_tensor(spec) for spec in specs if "user_input" not in spec],
        torch_version=torch_version,
        input_shape=tuple(size.get("as_int") for size in values[inputs[0]]["sizes"]),
        output_shape=tuple(size.get("as_int") for size in values[outputs[0]]["sizes"]),
        dtype=DTYPES[values[inputs[0]]["dtype"]],
    )


def _tensor(spec: dict[str, Any]) -> Tensor:
    match spec:
        case {"parameter": {"parameter_name": name}}:
            return Tensor(name, constant=False)
        case {"buffer": {"buffer_name": name, "persistent": persistent}}:
            return Tensor(name, constant=not persistent)
    return Tensor(spec["tensor_constant"]["tensor_constant_name"], constant=True)
