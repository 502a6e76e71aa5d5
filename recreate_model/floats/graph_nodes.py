"""The nodes of a frozen graph: following inputs from node to node, and reading constants.

For: `frozen_graph`, which knows what nodes a MobileNetV2 has. Not for: graphs with variables.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError

_VARIABLES = {"Variable", "VariableV2", "AutoReloadVariable", "VarHandleOp", "ReadVariableOp"}
_PASSED = ("Identity", "Reshape", "Squeeze", "StopGradient", "CheckNumerics")


class OtherLayoutError(InputError):
    """A sound graph that is not laid out as a MobileNetV2, so that nothing in it can be found."""


class Nodes:
    """The nodes of a graph by their names.

    Raises:
        InputError: not a GraphDef, a node that stands twice, or variables that were not frozen.
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
            raise self.refused("a readable frozen graph (GraphDef)", "bytes that are none") from error
        self.nodes: dict[str, Any] = {}
        for node in graph.node:
            if node.name in self.nodes:
                raise self.refused("every node once", f"two nodes {node.name!r}")
            if node.op in _VARIABLES:
                raise self.refused("constants in the place of variables", f"{node.op} {node.name!r}: it is not frozen")
            self.nodes[node.name] = node
        self._depths: dict[str, int] = {}

    def depth(self, name: str) -> int:
        """How many nodes there are on the longest way to a node."""
        order = [name]
        while order:
            current = order[-1]
            inputs = [self.named(text, current).name for text in self.nodes[current].input]
            left = [each for each in inputs if each not in self._depths]
            if len(order) > len(self.nodes):
                raise self.refused("a graph without a circle", f"one through {current!r}")
            if left and current not in self._depths:
                order.extend(left)
                continue
            self._depths[current] = 1 + max((self._depths[each] for each in inputs), default=0)
            order.pop()
        return self._depths[name]

    def passed(self, node: Any, place: int = 0) -> Any:
        """The node behind an input, with those that change no number left out."""
        for _ in range(len(self.nodes) + 1):
            if len(node.input) <= place:
                raise self.other(f"{node.op} {node.name!r} without an input where one must be")
            node, place = self.named(node.input[place], node.name), 0
            if node.op not in _PASSED:
                return node
        raise self.refused("a graph without a circle", f"one through {node.name!r}")

    def named(self, text: str, user: str) -> Any:
        name = text.removeprefix("^").split(":")[0]
        if name not in self.nodes:
            raise self.refused(f"the node {name!r}, an input of {user!r}", "no such node")
        return self.nodes[name]

    def vector(self, node: Any, place: int) -> Array:
        """A constant of one axis among the inputs of a node, of whatever length."""
        dimensions = self.passed(node, place).attr["value"].tensor.tensor_shape.dim
        return self.constant(node, place, (dimensions[0].size if len(dimensions) == 1 else 0,))

    def constant(self, node: Any, place: int, shape: tuple[int, ...]) -> Array:
        """A constant among the inputs of a node."""
        from tensorflow.python.framework import tensor_util

        found = self.passed(node, place)
        if found.op != "Const":
            raise self.other(f"{found.op} {found.name!r} in the place of a constant of {node.name!r}")
        try:
            value = np.asarray(tensor_util.MakeNdarray(found.attr["value"].tensor))
        except (TypeError, ValueError) as error:
            raise self.refused(f"a readable constant {found.name!r}", str(error).splitlines()[0]) from error
        if value.dtype != np.float32 or value.shape != shape:
            expected = f"float32 {shape} in the constant {found.name!r} of {node.name!r}"
            raise self.refused(expected, f"{value.dtype} {value.shape}")
        if not np.isfinite(value).all():
            raise self.refused(f"finite numbers in the constant {found.name!r}", "some that are not")
        return value

    def refused(self, expected: str, found: str) -> InputError:
        return InputError(
            expected=f"{self._source} to have {expected}",
            found=found,
            next_step="fetch it again, or give another --checkpoint",
        )

    def other(self, found: str) -> OtherLayoutError:
        return OtherLayoutError(
            expected=f"{self._source} to be laid out as the network of TF-Slim's mobilenet_v2.py",
            found=found,
            next_step="give a graph of this network, with --model its name",
        )
