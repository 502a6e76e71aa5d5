"""A TensorFlow GraphDef, written node by node and serialized deterministically."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recreate_model.network.layer import Folded, Layer
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured


class GraphWriter:
    """Builds a GraphDef node by node. The caller names every node; each method returns its node's name."""

    def __init__(self) -> None:
        with captured():
            from tensorflow.core.framework import graph_pb2

        self._graph = graph_pb2.GraphDef()
        # Version of the GraphDef semantics. TensorFlow rejects a graph with a version newer than its own.
        self._graph.versions.producer = 27

    def placeholder(self, name: str, shape: Sequence[int]) -> str:
        node = self._graph.node.add(op="Placeholder", name=name)
        _set(node.attr["dtype"], np.float32)
        for size in shape:
            node.attr["shape"].shape.dim.add(size=size)
        return name

    def constant(self, name: str, value: Array) -> str:
        node = self._graph.node.add(op="Const", name=name)
        _set(node.attr["dtype"], value.dtype.type)
        tensor = node.attr["value"].tensor
        tensor.dtype = node.attr["dtype"].type
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return name

    def node(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        node = self._graph.node.add(op=op, name=name, input=inputs)
        for key, value in attributes.items():
            _set(node.attr[key], value)
        return name

    def convolution(self, layer: Layer, folded: Folded, tensor: str) -> str:
        """Add the convolution, its bias and its ReLU6; return the name of the last node."""
        op, leaf = ("DepthwiseConv2dNative", "depthwise") if layer.depthwise else ("Conv2D", "Conv2D")
        weights = self.constant(layer.weights_name, folded.weights)
        tensor = self.node(
            op,
            f"{layer.name}/{leaf}",
            [tensor, weights],
            strides=[1, layer.stride, layer.stride, 1],
            padding=b"SAME",
            T=np.float32,
        )
        bias = self.constant(f"{layer.name}/biases", folded.bias)
        tensor = self.node("BiasAdd", f"{layer.name}/BiasAdd", [tensor, bias], T=np.float32)
        return self.node("Relu6", f"{layer.name}/Relu6", [tensor], T=np.float32) if layer.relu6 else tensor

    def serialize(self) -> bytes:
        data: bytes = self._graph.SerializeToString(deterministic=True)
        return data


def _set(attribute: Any, value: Any) -> None:
    """Set an AttrValue to a string, a list of integers, or a type."""
    if isinstance(value, bytes):
        attribute.s = value
    elif isinstance(value, list):
        attribute.list.i.extend(value)
    else:
        from tensorflow.core.framework import types_pb2

        attribute.type = {np.float32: types_pb2.DT_FLOAT, np.int32: types_pb2.DT_INT32}[value]
