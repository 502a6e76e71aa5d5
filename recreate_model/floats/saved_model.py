"""A SavedModel folder of a MobileNetV2, frozen as it would be served: its graph with constants for variables.

TensorFlow loads the folder, which runs no operator of the network. Not for: folders from strangers, of which
TensorFlow itself says that they are programs.
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
    """SHA-256 over what decides the weights: the canonical JSON of path -> SHA-256 of the graph and the variables."""
    files = [folder / FILE, *sorted(path for path in (folder / _VARIABLES).glob("*") if path.is_file())]
    return digest_json({path.relative_to(folder).as_posix(): digest_file(path) for path in files})


def size_of(folder: Path) -> int:
    """Bytes of the files that the digest is of."""
    files = [folder / FILE, *(path for path in (folder / _VARIABLES).glob("*") if path.is_file())]
    return sum(path.stat().st_size for path in files)


def freeze(folder: Path) -> bytes:
    """The graph of the signature that is served, or of the only one, as a serialised GraphDef without variables.

    Raises:
        InputError: TensorFlow cannot load it, or it has no such signature.
    """
    try:
        with captured():
            import tensorflow as tf
            from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

            loaded = tf.saved_model.load(str(folder))  # its variables live as long as it does
            names = sorted(loaded.signatures)
            name = names[0] if len(names) == 1 else _SIGNATURE
            if name not in names:
                raise _refused(folder, f"the signature {_SIGNATURE}", ", ".join(names) or "no signature")
            graph = convert_variables_to_constants_v2(loaded.signatures[name]).graph.as_graph_def()
    except InputError:
        raise
    # Loading runs through most of TensorFlow, and a damaged folder stops it anywhere.
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _refused(folder, "a SavedModel that TensorFlow can load", said) from error
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _refused(folder: Path, expected: str, found: str) -> InputError:
    return InputError(expected=f"{folder} to have {expected}", found=found, next_step="give another --checkpoint")
