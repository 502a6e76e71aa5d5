"""Float weights from an archive in the layout of the official MobileNetV2 checkpoints.

An archive holds each variable twice: its last value in training, and its exponential moving average. Inference uses
the averages. Only the BatchNorm statistics are stored once, because they are moving averages themselves. The archive's
frozen graph was exported from the averages, so its constants are compared with the variables read here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recreate_model.floats.frozen_graph import GraphComparison, compare
from recreate_model.network.architecture import variables
from recreate_model.network.spec import Model
from recreate_model.support import archive
from recreate_model.support.arrays import Array
from recreate_model.support.capture import captured
from recreate_model.support.errors import InputError

_STATISTICS = ("/moving_mean", "/moving_variance")
_AVERAGE = "/ExponentialMovingAverage"
_FROZEN = "_frozen.pb"
_PARTS = ("ckpt.data-00000-of-00001", "ckpt.index")


@dataclass(frozen=True, eq=False)
class FloatWeights:
    """The float weights of a network.

    Attributes:
        values: every variable of `architecture.variables`, float32; a folded layer has its weights and `biases` instead
            of BatchNorm variables.
        frozen_graph: the source's frozen graph, serialized; None if there is none, or none that a toolchain can
            convert.
        comparison: comparison of an archive's frozen graph with its variables; None without both.
        background: whether the source has class 0; if not, `with_background` has added it.
    """

    values: Mapping[str, Array]
    frozen_graph: bytes | None = None
    comparison: GraphComparison | None = None
    background: bool = True


def read_archive(path: Path, model: Model) -> FloatWeights:
    """Read the moving averages of `model`'s variables, and the frozen graph if there is one.

    Raises:
        InputError: the file is no such archive, it is damaged or of another model, or a variable is missing, not
            finite, not float32 or of the wrong shape.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        names = {Path(member).name for member in archive.members(path)}
        for part in _PARTS:
            if f"{model.name}.{part}" not in names:
                raise InputError(
                    expected=f"{path} to hold {model.name}.{part}",
                    found=", ".join(sorted(names)) or "no files",
                    next_step="give --model the name of the archive's model, or another --checkpoint",
                )
        files = archive.unpack(path, Path(scratch), lambda member: member.endswith((*_PARTS, _FROZEN)))
        by_name = {Path(member).name: file for member, file in files.items()}
        values = _read_variables(by_name[f"{model.name}.ckpt.index"].with_suffix(""), model, path)
        frozen = by_name.get(f"{model.name}{_FROZEN}")
        if frozen is None:
            return FloatWeights(values)
        graph = frozen.read_bytes()
        return FloatWeights(values, graph, compare(graph, model, values, f"{frozen.name} of {path}"))


def _read_variables(prefix: Path, model: Model, source: Path) -> dict[str, Array]:
    with captured():
        import tensorflow as tf

    # The checkpoint reader opens files lazily and reports damage with any of these exceptions.
    read_errors = (tf.errors.OpError, RuntimeError, ValueError)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except read_errors as error:
        raise _damaged(source, prefix.name, error) from error
    values = {}
    for name, shape in variables(model).items():
        stored = name if name.endswith(_STATISTICS) else name + _AVERAGE
        if stored not in shapes or tuple(shapes[stored]) != shape:
            raise InputError(
                expected=f"{source} to hold the variable {stored} of shape {shape}",
                found=f"shape {tuple(shapes[stored])}" if stored in shapes else "no such variable",
                next_step=f"give an archive of {model.name}, or give --model the name of the archive's model",
            )
        try:
            value = np.asarray(reader.get_tensor(stored))
        except read_errors as error:
            raise _damaged(source, stored, error) from error
        if value.dtype != np.float32 or not np.isfinite(value).all():
            bad = value.size - int(np.isfinite(value).sum()) if value.dtype.kind == "f" else value.size
            raise InputError(
                expected=f"{source} to hold finite float32 values in {stored}",
                found=f"{value.dtype} with {bad} of {value.size} values not finite",
                next_step="download the archive again, or give another --checkpoint",
            )
        if name.endswith("/moving_variance") and (value < 0).any():
            raise InputError(
                expected=f"{source} to hold non-negative variances in {stored}",
                found=f"{int((value < 0).sum())} of {value.size} values negative",
                next_step="download the archive again, or give another --checkpoint",
            )
        values[name] = value
    return values


def _damaged(source: Path, part: str, error: Exception) -> InputError:
    return InputError(
        expected=f"{source} to hold a readable TensorFlow checkpoint",
        found=f"an unreadable {part} ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        next_step="download the archive again, or give another --checkpoint",
    )
