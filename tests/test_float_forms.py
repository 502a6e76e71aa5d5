"""Float weights in every form that --checkpoint accepts give the same network, and other files are refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.console import NoBars
from pipeline.interface.views import prove as prove_view
from pipeline.provenance import check as provenance_check
from pipeline.provenance.read import read_statement
from pipeline.request.find_checkpoint import find_checkpoint
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.compare.verdict import Verdict
from recreate_model.floats import float_forms
from recreate_model.network import architecture
from recreate_model.network.layer import fold, folding_factor
from recreate_model.network.spec import Model
from recreate_model.prove import toolchain
from recreate_model.prove.prove import Checkpoint, Proof, prove
from recreate_model.prove.toolchain import Toolchain
from recreate_model.quantize import convert
from recreate_model.recipe import FROZEN_GRAPH, KERAS_FILE, SAVED_MODEL, TFLITE
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import InputError, PipelineError
from tests.conftest import SMALL, SMALL_REQUEST, build
from tests.float_files import KERAS, SLIM, folded_by_the_converter, keras_scores, write_keras, write_slim
from tests.official_layout import run_graph, unfolded_graph
from tests.published_models import Order, publish
from tests.test_bad_input import assert_one_error, run, small
from tests.tiny_models import tiny_model

# Allowed difference of folded values, relative to the largest in their tensor. TensorFlow's converter differs by 1.8e-7
# here and a few times that on another CPU. Raw variables in place of averages differ by 4e-2.
FOLDED_ELSEWHERE = 1e-5
# Allowed difference of scores, the largest of which is 0.13. Keras and the graph differ by 2.7e-6 here. An epsilon that
# is a tenth too large changes them by 3.8e-3, and two swapped layers by 0.3.
SAME_SCORES = 1e-4

Values = Mapping[str, Array]
CLASSIFIER = architecture.layers(SMALL)[-1]
FORMS = {".pb": FROZEN_GRAPH, ".h5": KERAS_FILE, ".keras": KERAS_FILE, ".tflite": TFLITE, "": SAVED_MODEL}


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory, small_weights: Values) -> Path:
    """A folder with the seeded weights in every form of TF-Slim's network."""
    folder = tmp_path_factory.mktemp("slim")
    write_slim(folder, SMALL, small_weights)
    return folder


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory, small_weights: Values) -> tuple[Path, object]:
    """A folder with the seeded weights in every form of Keras' network, and that network."""
    folder = tmp_path_factory.mktemp("keras")
    return folder, write_keras(folder, SMALL, small_weights)


@pytest.fixture(scope="module")
def published(small_float: bytes) -> bytes:
    """The INT8 model made from the variables themselves, with invented ranges."""
    return quantized(small_float)


def quantized(float_model: bytes) -> bytes:
    names = convert.activations_with_a_range(float_model)
    return convert.quantize(float_model, {name: (0.0, 6.0) if "Relu6" in name else (-6.0, 6.0) for name in names})


def folded(values: Values, classes: slice = slice(None)) -> Iterator[tuple[Array, Array]]:
    """Weights and bias of each layer. For the classifier, only those of `classes`."""
    for layer in architecture.layers(SMALL):
        both = fold(layer, values)
        yield (both.weights, both.bias) if layer.batch_norm else (both.weights[..., classes], both.bias[classes])


def _values(graph: Path) -> Values:
    return float_forms.read_weights(graph, SMALL).values


def distance(values: Values, others: Values, classes: slice = slice(None)) -> float:
    """The largest difference of two networks' folded values, relative to the largest in their tensor."""
    pairs = zip(folded(values, classes), folded(others, classes), strict=True)
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for ours, theirs in pairs
        for one, other in zip(ours, theirs, strict=True)
    )


# What is read


@pytest.mark.parametrize("name", SLIM)
def test_every_form_of_slims_network_gives_the_variables(name: str, slim: Path, small_weights: Values) -> None:
    """The values are equal bit for bit, except where TensorFlow's converter folded BatchNorm in float32."""
    path = slim / name
    read = float_forms.read_weights(path, SMALL)
    assert float_forms.form_of(path) == FORMS[path.suffix]
    assert read.background
    away = distance(read.values, small_weights)
    assert away < FOLDED_ELSEWHERE if name == "converter_folded.tflite" else away == 0
    assert (read.frozen_graph == path.read_bytes()) if path.suffix == ".pb" else read.frozen_graph is None


@pytest.mark.parametrize("name", KERAS)
def test_every_form_of_keras_network_gives_the_variables(
    name: str, keras_files: tuple[Path, object], small_weights: Values
) -> None:
    """Keras has no class 0, so it is filled in: its weights are zero, and its bias is the smallest of all."""
    path = keras_files[0] / name
    read = float_forms.read_weights(path, SMALL)
    assert float_forms.form_of(path) == FORMS[path.suffix]
    assert not read.background
    away = distance(read.values, small_weights, slice(1, None))
    assert away < FOLDED_ELSEWHERE if path.suffix == ".tflite" else away == 0
    weights, bias = (read.values[each] for each in CLASSIFIER.variables)
    assert not weights[..., 0].any()
    assert bias[0] == bias[1:].min()
    assert read.frozen_graph is None


def test_the_network_of_a_keras_file_computes_what_keras_does(keras_files: tuple[Path, object]) -> None:
    """1000 scores show that padding, epsilon and the order of layers are those of Keras."""
    folder, built = keras_files
    pictures = np.random.default_rng(3).uniform(-1, 1, (1, 96, 96, 3)).astype(np.float32)
    values = float_forms.read_weights(folder / "model.weights.h5", SMALL).values
    ours = run_graph(architecture.frozen_graph(SMALL, values), pictures)[:, 1:]
    theirs = keras_scores(built, pictures)
    assert np.abs(ours / ours.sum() - theirs).max() < SAME_SCORES
    assert ours.argmax() == theirs.argmax()


def test_keras_padding_equals_same_padding_in_the_whole_family() -> None:
    """At stride 2, both add one row and one column at the end if every size is even."""
    assert all(model.resolution % 32 == 0 for model in Model.family())


# What is built from the weights


def test_a_build_names_the_form_and_digest_of_its_checkpoint(
    slim: Path, keras_files: tuple[Path, object], tmp_path: Path
) -> None:
    """checkpoint.json, card and statement have them. freeze.json and the card say whether class 0 was filled in."""
    for number, path in enumerate((slim / "slim_saved_model", keras_files[0] / "model.h5")):
        request = replace(SMALL_REQUEST, checkpoint=str(path), calib=1, limit=1, out=tmp_path / str(number))
        build(request)
        (folder,) = request.out.iterdir()
        document = json.loads((folder / "checkpoint.json").read_text())
        assert (document["kind"], document["form"]) == ("file", FORMS[path.suffix])
        assert document["sha256"] == float_forms.digest_of(path)
        assert f"ckpt-{document['sha256'][:8]}" in folder.name
        card = (folder / "README.md").read_text()
        assert card.startswith(f"> **Built from a {document['form']} with SHA-256 {document['sha256']}, not from")
        statement = read_statement(folder / "provenance.intoto.json")
        table = {row.what: row.verdict for row in provenance_check.rows(statement, folder, path)}
        assert (table["recipe's checkpoint"], table["float archive"]) == ("match", "match")
        assert set(table.values()) <= {"match", "not checked"}
        filled = "background" in json.loads((folder / "float" / "freeze.json").read_text())
        assert filled == ("Class 0: the checkpoint has none" in card) == (number == 1)


def test_class_0_can_be_taken_from_a_published_file(
    keras_files: tuple[Path, object], published: bytes, small_weights: Values, tmp_path: Path
) -> None:
    """It is dequantized, so it is within half a level of the variables. The build has the digest of that file."""
    (tmp_path / "published.tflite").write_bytes(published)
    model = str(keras_files[0] / "model.keras")
    request = replace(SMALL_REQUEST, checkpoint=model, background=tmp_path / "published.tflite", out=tmp_path / "out")
    build(request, ("freeze",))
    (folder,) = request.out.iterdir()
    digest = digest_bytes(published)
    assert folder.name.endswith(f"-{digest[:8]}_INT8")
    assert digest in json.loads((folder / "float" / "freeze.json").read_text())["background"]
    (graph,) = (folder / "float").glob("*.pb")
    row, wanted = (each[CLASSIFIER.weights_name][..., 0] for each in (_values(graph), small_weights))
    assert 0 < np.abs(row - wanted).max() <= np.abs(wanted).max() / 127 / 2 * 1.001


@pytest.mark.parametrize("kind", ["seeded", "folded.pb"])
def test_a_checkpoint_with_class_0_accepts_no_other(kind: str, slim: Path, published: bytes, tmp_path: Path) -> None:
    """Seeded weights always have class 0, and the frozen graph contains it."""
    (tmp_path / "published.tflite").write_bytes(published)
    path = kind if kind == "seeded" else str(slim / kind)
    request = replace(SMALL_REQUEST, checkpoint=path, background=tmp_path / "published.tflite", out=tmp_path / "out")
    with pytest.raises(PipelineError, match="--background"):
        build(request, ("freeze",))


@pytest.mark.parametrize("name", ["folded.pb", "slim.tflite", "unfolded.pb"])
def test_every_form_gives_the_int8_model_of_the_variables(name: str, slim: Path, published: bytes) -> None:
    """The bytes are the same, whether BatchNorm was folded now or by this program before."""
    values = float_forms.read_weights(slim / name, SMALL).values
    assert quantized(convert.convert_float(architecture.frozen_graph(SMALL, values))) == published


# What is proved


def checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at a path, as the command line reads it."""
    request = Request(model="0.35_96", checkpoint=str(path), images="procedural", calib=1, limit=0)
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    return prove_view.checkpoint(recipe, machine.checkpoint)


def proved(model: bytes, given: Checkpoint) -> Proof:
    return prove(model, "the model", given, [], lambda chain: Path("/nonexistent"))


@pytest.mark.parametrize("name", SLIM)
def test_a_published_file_is_proved_with_every_form(name: str, slim: Path, published: bytes) -> None:
    """The verdict is IDENTICAL where the floats are the same, and CONSISTENT where a converter folded them."""
    found = proved(published, checkpoint(slim / name))
    assert found.refutations == ()
    assert found.verdict is Verdict.IDENTICAL or name == "converter_folded.tflite"
    assert found.verdict.reaches(Verdict.CONSISTENT)
    assert found.has_graph == name.endswith(".pb")


def test_a_frozen_graph_alone_is_converted_by_a_toolchain(slim: Path, tmp_path: Path) -> None:
    """The installed TensorFlow converts the given graph to the same bytes as when the file was published."""
    order = Order("one picture")
    path = slim / "unfolded.pb"
    model = publish(path.read_bytes(), SMALL, [order], tmp_path)[order]
    found = prove(model, "it", checkpoint(path), None, lambda chain: toolchain.ensure(chain, tmp_path, print))
    assert (found.verdict, found.attempts[-1].toolchain) == (Verdict.IDENTICAL, Toolchain("", "new").name)


@pytest.mark.parametrize("name", ["folded.pb", "converter_folded.tflite"])
def test_one_changed_weight_is_refuted(name: str, slim: Path, published: bytes) -> None:
    """One weight in one layer changes by a twentieth of the largest in its channel."""
    given = checkpoint(slim / name)
    layer = architecture.layers(SMALL)[7]
    weights = given.values[layer.weights_name].copy()
    weights[0, 0, 0, 0] += np.abs(weights[..., 0]).max() / 20
    found = proved(published, replace(given, values={**given.values, layer.weights_name: weights}))
    assert not found.verdict.reaches(Verdict.CONSISTENT)
    assert {each.tensor.split("/")[1] for each in found.refutations} == {layer.name.split("/")[1]}


@pytest.mark.parametrize("name", ["model.keras", "keras.tflite"])
def test_class_0_is_not_compared_if_the_checkpoint_has_none(
    name: str, keras_files: tuple[Path, object], published: bytes
) -> None:
    """The other 1000 classes are compared, and one wrong weight among them refutes."""
    given = checkpoint(keras_files[0] / name)
    found = proved(published, given)
    assert found.refutations == ()
    assert found.verdict.reaches(Verdict.CONSISTENT)
    assert not found.has_background
    weights = given.values[CLASSIFIER.weights_name].copy()
    weights[0, 0, 5, 1] += np.abs(weights[..., 1]).max() / 20
    changed = replace(given, values={**given.values, CLASSIFIER.weights_name: weights})
    assert {each.what.split("of ")[-1] for each in proved(published, changed).refutations} == {"channel 1"}


def test_a_dead_channel_that_a_converter_folded_is_consistent(small_weights: Values, tmp_path: Path) -> None:
    """Its bias has 1e9 levels, so the converter's rounding is many levels. A change by a thousandth still refutes."""
    first = "MobilenetV2/Conv"
    changed = {name: value.copy() for name, value in small_weights.items()}
    changed[f"{first}/weights"][..., 4] = 0
    factor = folding_factor(architecture.layers(SMALL)[0], changed)[4]
    changed[f"{first}/BatchNorm/moving_mean"][4] = 20
    changed[f"{first}/BatchNorm/beta"][4] = 20 * factor + 0.37
    model = quantized(convert.convert_float(architecture.frozen_graph(SMALL, changed)))
    (tmp_path / "it.tflite").write_bytes(folded_by_the_converter(unfolded_graph(SMALL, changed), SMALL))
    given = checkpoint(tmp_path / "it.tflite")
    assert proved(model, given).refutations == ()
    biases = given.values[f"{first}/biases"].copy()
    biases[4] *= 1.001
    refuted = proved(model, replace(given, values={**given.values, f"{first}/biases": biases})).refutations
    assert "bias of channel 4" in {each.what for each in refuted}


# Detection by content


def test_the_digest_of_a_folder_covers_what_decides_its_weights(slim: Path, tmp_path: Path) -> None:
    """Its name and other files do not change the digest. The graph does."""
    copy = shutil.copytree(slim / "slim_saved_model", tmp_path / "copy")
    (copy / "notes.txt").write_text("mine")
    assert float_forms.digest_of(copy) == float_forms.digest_of(slim / "slim_saved_model")
    with (copy / "saved_model.pb").open("ab") as stream:
        stream.write(b"\n")
    assert float_forms.digest_of(copy) != float_forms.digest_of(slim / "slim_saved_model")


def test_the_file_name_does_not_decide_the_form(slim: Path, tmp_path: Path, small_weights: Values) -> None:
    """A .tflite file with the name of an archive is read as a .tflite file."""
    path = shutil.copyfile(slim / "slim.tflite", tmp_path / "mobilenet_v2_0.35_96.tgz")
    assert distance(float_forms.read_weights(path, SMALL).values, small_weights) == 0


# Other files


def zipped(*names: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as opened:
            for name in names:
                opened.writestr(name, b"")

    return write


def written(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


FOREIGN = {
    "an empty file": written(b""),
    "a Git LFS pointer": written(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    "an HTML page": written(b"<!DOCTYPE html><title>404</title>"),
    "an ONNX file": written(b"\x08\x07\x12\x07pytorch\x1a\x051.9\x00:"),
    "a PyTorch file": zipped("archive/data.pkl", "archive/data/0"),
    "a pickle, the format of old PyTorch files": written(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    "NumPy arrays (.npz)": zipped("weights.npy"),
    "a zip without model.weights.h5, with notes": zipped("notes"),
    "a damaged zip": written(b"PK\x03\x04 and no more"),
    "a safetensors file": written(b'\x40\0\0\0\0\0\0\0{"__metadata__":{"format":"pt"}}'),
    "the saved_model.pb of a SavedModel": written(b"\x08\x01\x12\x03abc"),
    "the .index of a TensorFlow checkpoint": written(b"\0" * 40 + bytes.fromhex("57fb808b247547db")),
    "a graph in text format": written(b'node {\n  name: "input"\n}\n'),
    "text": written("Gewichte für ein Netz\n".encode()),
    "a file of unknown format": written(b"\x01\x02\xff\x00" * 40),
    "a folder without saved_model.pb": lambda path: path.mkdir(),
    "a folder with a TensorFlow checkpoint": lambda path: path.mkdir() or (path / "model.ckpt.index").touch(),
}


@pytest.mark.parametrize("found", FOREIGN)
def test_the_error_for_a_foreign_file_names_its_kind(found: str, tmp_path: Path) -> None:
    """It lists the accepted forms, too."""
    FOREIGN[found](tmp_path / "it")
    with pytest.raises(InputError) as caught:
        find_checkpoint(str(tmp_path / "it"), SMALL, NoBars(), may_fetch=False)
    assert caught.value.found.startswith(found)
    assert "a frozen graph (.pb), a float .tflite, a Keras file (.h5, .keras) or a SavedModel" in caught.value.expected


def test_a_foreign_file_is_bad_input_on_the_command_line(tmp_path: Path) -> None:
    """The error comes before anything is built."""
    zipped("archive/data.pkl")(tmp_path / "weights.pt")
    result = run(*small("freeze", tmp_path / "out", checkpoint=tmp_path / "weights.pt"))
    assert_one_error(result, 3, "a PyTorch file", "a Keras file (.h5, .keras)")


def edited_config(change: Callable[[Any], None]) -> Callable[[Path, Path], None]:
    """Changes the layers in the description of a Keras file."""

    def write(folder: Path, path: Path) -> None:
        shutil.copyfile(folder / "model.h5", path)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config["config"]["layers"])
            file.attrs["model_config"] = json.dumps(config)

    return write


def first(layers: Any, kind: str) -> Any:
    return next(each["config"] for each in layers if each["class_name"] == kind)


def edited_file(change: Callable[[Any], None]) -> Callable[[Path, Path], None]:
    """Changes a Keras weights file."""

    def write(folder: Path, path: Path) -> None:
        shutil.copyfile(folder / "model.weights.h5", path)
        with h5py.File(path, "r+") as file:
            change(file["layers"])

    return write


def linked(layers: Any) -> None:
    del layers["conv2d"]["vars"]["0"]
    layers["conv2d"]["vars"]["0"] = h5py.ExternalLink("/etc/hostname", "/")


def not_finite(layers: Any) -> None:
    layers["batch_normalization_3"]["vars"]["0"][2] = np.nan


def negative(layers: Any) -> None:
    layers["batch_normalization_3"]["vars"]["3"][2] = -1


def cut(folder: Path, path: Path) -> None:
    data = (folder / "model.weights.h5").read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD_KERAS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "epsilon": (edited_config(lambda layers: first(layers, "BatchNormalization").update(epsilon=0.01)), "the epsilon"),
    "stride": (edited_config(lambda layers: first(layers, "DepthwiseConv2D").update(strides=[2, 2])), "the stride"),
    "padding": (edited_config(lambda layers: first(layers, "ZeroPadding2D").update(padding=[[1, 1]] * 2)), "padding"),
    "input": (edited_config(lambda layers: first(layers, "InputLayer").update(batch_shape=[None, 64, 64, 3])), "64"),
    "description": (edited_config(lambda layers: layers.append(3)), "a readable Keras file"),
    "no top": (edited_file(lambda layers: layers.pop("dense")), "include_top=True"),
    "layer": (edited_file(lambda layers: layers.pop("conv2d_4")), r"float32 \(1, 1"),
    "link": (edited_file(linked), "no 0 in /layers/conv2d/vars"),
    "NaN": (edited_file(not_finite), "finite values in MobilenetV2/expanded_conv_1/expand/BatchNorm/gamma"),
    "variance": (edited_file(negative), "no negative variance"),
    "cut": (cut, "a readable Keras file"),
}


@pytest.mark.parametrize("kind", BAD_KERAS)
def test_a_bad_keras_file_is_refused(kind: str, keras_files: tuple[Path, object], tmp_path: Path) -> None:
    """The file is damaged, or describes another network. The error says which."""
    write, words = BAD_KERAS[kind]
    write(keras_files[0], tmp_path / "it.h5")
    with pytest.raises(InputError, match=words):
        float_forms.read_weights(tmp_path / "it.h5", SMALL)


def unfrozen() -> bytes:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.compat.v1.placeholder(tf.float32, (1, 96, 96, 3), "input")
        tf.compat.v1.get_variable("weights", (3, 3, 3, 16), use_resource=False)
        data: bytes = graph.as_graph_def().SerializeToString()
        return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: tiny_model("int8"), "a quantized model: int8 in tensor"),
        (lambda: tiny_model("float"), "to have 1000 or 1001 classes; found"),
        (unfrozen, "it is not frozen"),
    ],
    ids=["quantized", "another network", "unfrozen"],
)
def test_a_model_that_is_not_a_float_mobilenet_is_refused(
    data: Callable[[], bytes], words: str, tmp_path: Path
) -> None:
    """A quantized model, a float model of another network, and a graph that still has variables."""
    (tmp_path / "it").write_bytes(data())
    with pytest.raises(InputError, match=words):
        float_forms.read_weights(tmp_path / "it", SMALL)


@pytest.mark.parametrize("name", ["folded.pb", "slim.tflite", "slim_saved_model"])
@pytest.mark.parametrize("model", [Model("0.5", 96), Model("0.35", 128)], ids=["width", "resolution"])
def test_another_member_of_the_family_is_refused(name: str, model: Model, slim: Path) -> None:
    """The shapes of its weights or the size of its input do not fit."""
    with pytest.raises(InputError, match=r"float32|input"):
        float_forms.read_weights(slim / name, model)


def test_a_damaged_saved_model_is_refused(slim: Path, tmp_path: Path) -> None:
    """The error is one line, whatever TensorFlow reports."""
    (tmp_path / "saved_model.pb").write_bytes((slim / "slim_saved_model" / "saved_model.pb").read_bytes()[:1000])
    with pytest.raises(InputError, match="a SavedModel that TensorFlow can load"):
        float_forms.read_weights(tmp_path, SMALL)
