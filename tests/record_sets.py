"""Sets of TFRecords, written by TensorFlow's own writer and its own `tf.train.Example`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from calibration.pictures.class_labels import class_of_synset
from recreate_model.network.labels import wnids

Value = bytes | int | float


def example(features: Mapping[str, Value | Sequence[Value]]) -> bytes:
    """A serialized `tf.train.Example`."""
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        values = list(value) if isinstance(value, list | tuple) else [value]
        feature = made.features.feature[name]
        kind = (
            {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(values[0])] if values else "bytes_list"
        )
        getattr(feature, kind).value.extend(values)
    data: bytes = made.SerializeToString()
    return data


def write_file(path: Path, records: Sequence[bytes], compression: str = "") -> Path:
    """Writes one TFRecord file."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), options=compression) as writer:
        for record in records:
            writer.write(record)
    return path


def write_shards(folder: Path, split: str, records: Sequence[bytes], shards: int) -> list[Path]:
    """Distributes the records over shards with TF-Slim's names."""
    return [
        write_file(folder / f"{split}-{shard:05d}-of-{shards:05d}", records[shard::shards]) for shard in range(shards)
    ]


def slim(image: bytes, synset: str, file_name: str) -> bytes:
    """A record with every feature that TF-Slim's build_imagenet_data.py writes; its labels count from 1."""
    return example(
        {
            "image/height": 100,
            "image/width": 120,
            "image/colorspace": b"RGB",
            "image/channels": 3,
            "image/class/label": class_of_synset(synset) or 0,
            "image/class/synset": synset.encode(),
            "image/class/text": b"some words",
            "image/object/bbox/xmin": [0.25, 0.5],
            "image/object/bbox/xmax": [],
            "image/object/number": 2,
            "image/format": b"JPEG",
            "image/filename": file_name.encode(),
            "image/encoded": image,
        }
    )


def slim_of_folder(folder: Path) -> list[bytes]:
    """The pictures of synset folders as records."""
    return [slim(path.read_bytes(), path.parent.name, path.name) for path in sorted(folder.glob("n*/*"))]


def plain(image: bytes, label: int | None, **more: Value) -> bytes:
    """A record of the published recipe: a picture and its class number, without a name."""
    label_feature = {} if label is None else {"image/class/label": label}
    return example({"image/encoded": image, **label_feature, **more})


def synset(label: int) -> str:
    """The synset of a class id."""
    return wnids()[label - 1]
