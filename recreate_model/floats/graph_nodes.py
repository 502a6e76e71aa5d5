"""The nodes of a frozen graph: following inputs from node to node, and reading constants.

`frozen_graph` builds on this and knows which nodes a MobileNetV2 has. Graphs with variables are rejected.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError

_VARIABLES = {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "ReadVariableOp"}
_VALUE_PRESERVING = ("Identity", "Reshape", "Squeeze", "StopGradient", "CheckNumerics")


class OtherLayoutError(InputError):
    """A valid graph whose layout is not that of a MobileNetV2, so its constants cannot be assigned to layers."""


class Nodes:
    """The nodes of a graph, by name.

    Args:
        data: a serialized GraphDef.
        source: name of the graph in error messages.

    Raises:
        InputError: the data is no GraphDef, two nodes share a name, or a variable is not frozen.
    """

    def __init__(self, data: bytes, source: str) -> None:
        with captured():
            from google.protobuf.message import DecodeError
            from tensorflow.core.framework import graph_pb2

        self._source = source
        graph = graph_pb2.GraphDef()
        try:
            graph.ParseFromString(data)
        except DecodeError as error:
            raise self.invalid("a readable frozen graph (GraphDef)", "data that is not a GraphDef") from error
        self.nodes: dict[str, Any] = {}
        for node in graph.node:
            if node.name in self.nodes:
                raise self.invalid("unique node names", f"two nodes {node.name!r}")
            if node.op in _VARIABLES:
                raise self.invalid("constants instead of variables", f"{node.op} {node.name!r}: it is not frozen")
            self.nodes[node.name] = node
        self._depths: dict[str, int] = {}

    def depth(self, name: str) -> int:
        """Return the number of nodes on the longest path from an input of the graph to a node.

        Raises:
            InputError: the graph has a cycle, or an input that names no node.
        """
        stack = [name]
        while stack:
            current = stack[-1]
            inputs = [self.resolve(text, current).name for text in self.nodes[current].input]
            pending = [source for source in inputs if source not in self._depths]
            if len(stack) > len(self.nodes):
                raise self.invalid("an acyclic graph", f"a cycle through {current!r}")
            if pending and current not in self._depths:
                stack.extend(pending)
                continue
            self._depths[current] = 1 + max((self._depths[source] for source in inputs), default=0)
            stack.pop()
        return self._depths[name]

    def producer(self, node: Any, index: int = 0) -> Any:
        """Return the node that computes an input of `node`, skipping nodes that do not change the values.

        Raises:
            InputError: the graph has a cycle, or an input that names no node.
            OtherLayoutError: a node on the path lacks the input.
        """
        for _ in range(len(self.nodes) + 1):
            if len(node.input) <= index:
                raise self.other_layout(f"{node.op} {node.name!r} without input {index}")
            node, index = self.resolve(node.input[index], node.name), 0
            if node.op not in _VALUE_PRESERVING:
                return node
        raise self.invalid("an acyclic graph", f"a cycle through {node.name!r}")

    def resolve(self, text: str, user: str) -> Any:
        """Return the node that an input of the node `user` refers to, such as `^name` or `name:0`."""
        name = text.removeprefix("^").split(":")[0]
        if name not in self.nodes:
            raise self.invalid(f"the node {name!r}, an input of {user!r}", "no such node")
        return self.nodes[name]

    def vector(self, node: Any, index: int) -> Array:
        """Return the constant at an input of `node`: float32 with one axis, of any length. Raises as `constant`."""
        dimensions = self.producer(node, index).attr["value"].tensor.tensor_shape.dim
        return self.constant(node, index, (dimensions[0].size if len(dimensions) == 1 else 0,))

    def constant(self, node: Any, index: int, shape: tuple[int, ...]) -> Array:
        """Return the constant at an input of `node`: float32 of the given shape.

        Raises:
            InputError: the constant is unreadable, not finite, or has another type or shape.
            OtherLayoutError: the input is not a constant.
        """
        from tensorflow.python.framework import tensor_util

        found = self.producer(node, index)
        if found.op != "Const":
            raise self.other_layout(f"{found.op} {found.name!r} instead of a constant input of {node.name!r}")
        try:
            value = np.asarray(tensor_util.MakeNdarray(found.attr["value"].tensor))
        except (TypeError, ValueError) as error:
            raise self.invalid(f"a readable constant {found.name!r}", str(error).splitlines()[0]) from error
        if value.dtype != np.float32 or value.shape != shape:
            expected = f"float32 {shape} in the constant {found.name!r} of {node.name!r}"
            raise self.invalid(expected, f"{value.dtype} {value.shape}")
        if not np.isfinite(value).all():
            raise self.invalid(f"finite values in the constant {found.name!r}", "NaN or infinite values")
        return value

    def invalid(self, expected: str, found: str) -> InputError:
        """Return the error for a graph that cannot be used."""
        return InputError(
            expected=f"{self._source} to have {expected}",
            found=found,
            next_step="get the checkpoint again, or give another --checkpoint",
        )

    def other_layout(self, found: str) -> OtherLayoutError:
        """Return the error for a graph with another layout."""
        return OtherLayoutError(
            expected=f"{self._source} to have the layout of the network in TF-Slim's mobilenet_v2.py",
            found=found,
            next_step="give a graph of this network, and its name with --model",
        )
