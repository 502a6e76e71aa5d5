"""Models edited through the schema's object interface, which writes the whole file again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def edited(model: bytes, change: Callable[[Any], None] = lambda tree: None, filler: bytes = b"") -> bytes:
    """The model after a change of its object tree; a `filler` that nothing refers to changes the layout."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    change(tree)
    builder = flatbuffers.Builder(len(model) + 1024)
    builder.CreateByteVector(filler)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operator(tree: Any, name: str) -> Any:
    """The first operator of that kind."""
    code = getattr(schema.BuiltinOperator, name)
    return next(one for one in tree.subgraphs[0].operators if tree.operatorCodes[one.opcodeIndex].builtinCode == code)


def operand(tree: Any, name: str, position: int) -> Any:
    """A tensor that the first operator of a kind reads."""
    return tree.subgraphs[0].tensors[operator(tree, name).inputs[position]]


def result(tree: Any, name: str) -> Any:
    """The tensor that the first operator of a kind writes."""
    return tree.subgraphs[0].tensors[operator(tree, name).outputs[0]]


def data(tree: Any, tensor: Any) -> Any:
    """A constant's bytes, to be changed in place."""
    buffer = tree.buffers[tensor.buffer]
    buffer.data = buffer.data.copy()
    return buffer.data


def code(tree: Any, name: str, version: int = 1, custom: bytes | None = None) -> int:
    """Index of a new operator code."""
    entry = schema.OperatorCodeT()
    entry.builtinCode = getattr(schema.BuiltinOperator, name) if isinstance(name, str) else name
    entry.deprecatedBuiltinCode = min(entry.builtinCode, 127)
    entry.version, entry.customCode = version, custom
    tree.operatorCodes.append(entry)
    return len(tree.operatorCodes) - 1


def insert(tree: Any, at: int, opcode: int, inputs: list[int], outputs: list[int]) -> Any:
    """A new operator without options."""
    one = schema.OperatorT()
    one.opcodeIndex, one.inputs, one.outputs = opcode, inputs, outputs
    tree.subgraphs[0].operators.insert(at, one)
    return one


def new_tensor(tree: Any, like: Any, dtype: int, name: bytes) -> int:
    """Index of a new activation of the same shape, without quantization."""
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.name, tensor.buffer, tensor.hasRank = like.shape, dtype, name, 0, like.hasRank
    tree.subgraphs[0].tensors.append(tensor)
    return len(tree.subgraphs[0].tensors) - 1


def permuted(model: bytes, order: list[int]) -> bytes:
    """The model with its tensors in another order; `order[i]` is the old index of the new tensor i."""
    new = {old: index for index, old in enumerate(order)} | {-1: -1}

    def change(tree: Any) -> None:
        graph = tree.subgraphs[0]
        graph.tensors = [graph.tensors[old] for old in order]
        for holder in (graph, *graph.operators):
            holder.inputs = [new[int(index)] for index in holder.inputs]
            holder.outputs = [new[int(index)] for index in holder.outputs]

    return edited(model, change)


def computed(model: bytes) -> Any:
    """Everything that determines what a valid model computes, as read by the generated classes, not by ours."""
    tree = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = tree.subgraphs

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(plain(one) for one in value)
        if hasattr(value, "tobytes"):
            return value.tobytes()
        if hasattr(value, "Pack"):
            return (type(value).__name__, *((name, plain(one)) for name, one in vars(value).items()))
        return repr(value)

    def numbers(tensor: Any) -> Any:
        fields = dict(vars(tensor), buffer=tree.buffers[tensor.buffer].data)
        del fields["name"]
        return plain([fields[name] for name in sorted(fields) if name != "hasRank"])

    def step(one: Any) -> Any:
        kind = tree.operatorCodes[one.opcodeIndex]
        number = max(kind.builtinCode, kind.deprecatedBuiltinCode)
        fields = {name: value for name, value in vars(one).items() if name != "opcodeIndex"}
        return plain([number, kind.version, kind.customCode or b"", *fields.values()])

    steps = [step(one) for one in graph.operators]
    return tree.version, plain([graph.inputs, graph.outputs]), steps, [numbers(one) for one in graph.tensors]
