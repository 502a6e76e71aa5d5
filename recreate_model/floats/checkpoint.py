"""Float weights from an archive in the layout of the official MobileNetV2 checkpoints.

An archive holds the variables twice: as training left them, and as exponential moving averages. Inference uses the
averages; only BatchNorm's own statistics have none, being averages already. The archive's frozen graph was exported
from the averages, and is compared with what is read here.
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
        values: every variable of `network.variables`, float32; of a layer with BatchNorm folded, its weights and
            `biases` instead.
        frozen_graph: that of the archive, serialised; None where it has none.
        comparison: of its constants with the variables; None where there is no graph beside them.
        background: whether the file has class 0; where it has not, `background` filled it in.
    """

    values: Mapping[str, Array]
    frozen_graph: bytes | None = None
    comparison: GraphComparison | None = None
    background: bool = True


def read_archive(path: Path, model: Model) -> FloatWeights:
    """Reads the moving averages of `model`'s variables, and the frozen graph.

    Raises:
        InputError: not such an archive, another model's, or a variable that is missing, misshapen or not finite.
    """
    with tempfile.TemporaryDirectory(prefix="recreate_model-") as scratch:
        names = {Path(member).name for member in archive.members(path)}
        for part in _PARTS:
            if f"{model.name}.{part}" not in names:
                raise InputError(
                    expected=f"{path} to hold {model.name}.{part}",
                    found=", ".join(sorted(names)) or "no file at all",
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

    # The bundle reader opens files lazily and reports damage with a range of exceptions of its own.
    broken = (tf.errors.OpError, RuntimeError, ValueError)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except broken as error:
        raise _damaged(source, prefix.name, error) from error
    values = {}
    for name, shape in variables(model).items():
        # BatchNorm's statistics are averages already. Everything else has both, and the raw one is not what is wanted.
        stored = name if name.endswith(_STATISTICS) else name + _AVERAGE
        if stored not in shapes or tuple(shapes[stored]) != shape:
            raise InputError(
                expected=f"{source} to hold the variable {stored} of shape {shape}",
                found=f"shape {tuple(shapes[stored])}" if stored in shapes else "no such variable",
                next_step=f"give an archive of {model.name}, or --model the archive's own",
            )
        try:
            value = np.asarray(reader.get_tensor(stored))
        except broken as error:
            raise _damaged(source, stored, error) from error
        if value.dtype != np.float32 or not np.isfinite(value).all():
            bad = value.size - int(np.isfinite(value).sum()) if value.dtype.kind == "f" else value.size
            raise InputError(
                expected=f"{source} to hold finite float32 numbers in {stored}",
                found=f"{bad} of {value.size} that are not",
                next_step="fetch the archive again, or give another --checkpoint",
            )
        if name.endswith("/moving_variance") and (value < 0).any():
            raise InputError(
                expected=f"{source} to hold variances in {stored}, which are not negative",
                found=f"{int((value < 0).sum())} of {value.size} that are",
                next_step="fetch the archive again, or give another --checkpoint",
            )
        values[name] = value
    return values


def _damaged(source: Path, part: str, error: Exception) -> InputError:
    return InputError(
        expected=f"{source} to hold a readable TensorFlow checkpoint",
        found=f"{part} that cannot be read ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        next_step="fetch the archive again, or give another --checkpoint",
    )
