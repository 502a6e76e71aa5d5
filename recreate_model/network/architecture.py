"""The network of a model: its layers and its float graph, from the module of its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from recreate_model.network import mobilenet_v2
from recreate_model.network.layer import Layer
from recreate_model.network.spec import MOBILENET_V2, Model
from recreate_model.support.arrays import Array


class _Network(Protocol):
    """What the module of a family has."""

    def layers(self, model: Model) -> tuple[Layer, ...]: ...

    def frozen_graph(self, model: Model, values: Mapping[str, Array]) -> bytes: ...


_NETWORKS: dict[str, _Network] = {MOBILENET_V2.prefix: mobilenet_v2}  # by the prefix of the family


def layers(model: Model) -> tuple[Layer, ...]:
    """Return all convolutions of the network in order; the last is the classifier, after the average pool."""
    return _NETWORKS[model.spec.prefix].layers(model)


def variables(model: Model) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every variable that inference needs, in the order of the layers."""
    return {name: shape for layer in layers(model) for name, shape in layer.variables.items()}


def frozen_graph(model: Model, values: Mapping[str, Array]) -> bytes:
    """Return the network as a serialized GraphDef.

    Its input is float32 (1, resolution, resolution, 3), its output the softmax, float32 (1, classes). BatchNorm is
    folded in float64. Serialization is deterministic.

    Args:
        model: the member of the family.
        values: every one of `variables(model)`; a folded layer has `biases` instead of its BatchNorm variables.
    """
    return _NETWORKS[model.spec.prefix].frozen_graph(model, values)
