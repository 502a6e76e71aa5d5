"""A SavedModel folder of a MobileNetV2, frozen: the graph of its serving signature, with constants for variables.

TensorFlow loads the folder but does not run the network. Load only trusted folders: TensorFlow's documentation warns
that a SavedModel is a program.
"""

from __future__ import annotations

from pathlib import Path

from recreate_model.support.capture import captured
from recreate_model.support.digest import digest_file, digest_json
from recreate_model.support.errors import InputError

FILE = "saved_model.pb"
_VARIABLES = "variables"
_SIGNATURE = "serving_default"


def digest_saved_model(folder: Path) -> str:
    """Return the SHA-256 of the canonical JSON of path -> SHA-256, for the files that determine the weights."""
    return digest_json({path.relative_to(folder).as_posix(): digest_file(path) for path in _files(folder)})


def size_of(folder: Path) -> int:
    """Return the size in bytes of the files that `digest_saved_model` covers."""
    return sum(path.stat().st_size for path in _files(folder))


def _files(folder: Path) -> list[Path]:
    """Return the files of the graph and the variables, in a fixed order."""
    return [folder / FILE, *sorted(path for path in (folder / _VARIABLES).glob("*") if path.is_file())]


def freeze(folder: Path) -> bytes:
    """Return the graph of the only signature, or else of `serving_default`, as a serialized GraphDef without variables.

    Raises:
        InputError: TensorFlow cannot load the folder, or it has no such signature.
    """
    try:
        with captured():
            import tensorflow as tf
            from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

            loaded = tf.saved_model.load(str(folder))  # must stay referenced: it owns the variables
            names = sorted(loaded.signatures)
            name = names[0] if len(names) == 1 else _SIGNATURE
            if name not in names:
                raise _mismatch(folder, f"the signature {_SIGNATURE}", ", ".join(names) or "no signature")
            graph = convert_variables_to_constants_v2(loaded.signatures[name]).graph.as_graph_def()
    except InputError:
        raise
    # A damaged folder makes TensorFlow raise almost any exception.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _mismatch(folder, "a SavedModel that TensorFlow can load", reason) from error
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _mismatch(folder: Path, expected: str, found: str) -> InputError:
    return InputError(expected=f"{folder} to have {expected}", found=found, next_step="give another --checkpoint")
