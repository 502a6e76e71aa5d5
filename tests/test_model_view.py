"""Reading model files: the content of a valid one, and a one-line error for each invalid one."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from recreate_model.support.errors import InputError
from recreate_model.tflite.model_view import read_file, read_model
from tests.edited_models import code, data, edited, operand, operator, result
from tests.tiny_models import tiny_model


def test_a_view_holds_operators_with_their_options() -> None:
    """Options have the names of the schema, their values the names of its enumerations; the version is there too."""
    view = read_model(tiny_model("int8"))
    first = view.operators[0]
    assert (first.name, first.version, first.options_kind) == ("CONV_2D", 3, "Conv2DOptions")
    assert first.options["padding"] == "SAME"
    assert first.options["fused_activation_function"] == "RELU6"
    assert (first.options["stride_w"], first.options["dilation_h_factor"]) == (2, 1)
    assert view.operators[-1].options == {"beta": 1.0}
    assert view.rest == {"metadata_buffer": None, "debug_metadata_index": -1}


def test_a_view_holds_fields_that_no_computation_needs() -> None:
    """Metadata, operator codes, buffers, signatures and recorded ranges, used or not."""

    def change(tree: Any) -> None:
        code(tree, "TANH", 7)
        graph = tree.subgraphs[0]
        graph.tensors[0].quantization.min = [-1.5]
        graph.tensors[0].quantization.max = [2.0]
        signature = schema.SignatureDefT()
        signature.signatureKey, names = b"serve", schema.TensorMapT()
        names.name, names.tensorIndex = b"picture", int(graph.inputs[0])
        signature.inputs, signature.outputs = [names], []
        tree.signatureDefs = [signature]

    view = read_model(edited(tiny_model("int8"), change))
    assert [name for name, _ in view.metadata] == ["min_runtime_version", "CONVERSION_METADATA"]
    assert (view.operator_codes[-1].name, view.operator_codes[-1].version) == ("TANH", 7)
    assert (view.tensors[0].minimum, view.tensors[0].maximum) == ((-1.5,), (2.0,))
    assert view.signatures[0].key == "serve"
    assert view.signatures[0].inputs == (("picture", view.inputs[0]),)
    assert (view.graph_name, len(view.buffers) > len({t.buffer for t in view.tensors})) == ("main", True)


def test_operators_that_the_schema_does_not_know_keep_their_number() -> None:
    """A builtin operator of a later schema and a custom operator are read like any other."""

    def change(tree: Any) -> None:
        tree.operatorCodes[operator(tree, "SOFTMAX").opcodeIndex].builtinCode = 999
        one = operator(tree, "CONV_2D")
        one.opcodeIndex = code(tree, "CUSTOM", custom=b"mine")
        one.builtinOptionsType, one.builtinOptions, one.customOptions = 0, None, np.array([1, 2], np.uint8)

    view = read_model(edited(tiny_model("int8"), change))
    assert view.operators[-1].name == "BUILTIN_999"
    assert (view.operators[0].name, view.operators[0].custom_code) == ("CUSTOM", "mine")
    assert view.operators[0].custom_options == b"\x01\x02"


def test_a_buffer_after_the_flatbuffer_is_read_and_checked() -> None:
    """Files above 2 GB store constants after the tables; a constant that ends outside of the file is refused."""
    model = tiny_model("int8")
    weights = max(read_model(model).tensors, key=lambda tensor: len(tensor.data))

    def moved(offset: int) -> bytes:
        def change(tree: Any) -> None:
            tree.buffers[weights.buffer].data = None
            tree.buffers[weights.buffer].offset = offset
            tree.buffers[weights.buffer].size = len(weights.data)

        return edited(model, change)

    size = len(moved(2))
    assert max(read_model(moved(size) + weights.data).tensors, key=lambda t: len(t.data)).data == weights.data
    with pytest.raises(InputError, match=f"{len(weights.data)} bytes at offset {size} of a file of {size} bytes"):
        read_model(moved(size))


def _operand_out_of_range(tree: Any) -> None:
    operator(tree, "CONV_2D").inputs = [0, 1, 400]


def _negative_operand(tree: Any) -> None:
    operator(tree, "CONV_2D").inputs = [-2, 1, 2]


def _output_out_of_range(tree: Any) -> None:
    tree.subgraphs[0].outputs = [77]


def _buffer_out_of_range(tree: Any) -> None:
    tree.subgraphs[0].tensors[0].buffer = 99


def _code_out_of_range(tree: Any) -> None:
    operator(tree, "SOFTMAX").opcodeIndex = 50


def _short_constant(tree: Any) -> None:
    tensor = operand(tree, "CONV_2D", 1)
    tree.buffers[tensor.buffer].data = data(tree, tensor)[:-1]


def _other_shape(tree: Any) -> None:
    operand(tree, "CONV_2D", 1).shape = [3, 3, 3, 9]


def _endless_shape(tree: Any) -> None:
    operand(tree, "CONV_2D", 1).shape = np.full(100_000, 2**31 - 1, np.int32)


def _missing_scale(tree: Any) -> None:
    quantization = operand(tree, "CONV_2D", 1).quantization
    quantization.scale = quantization.scale[:-1]


def _missing_zero_points(tree: Any) -> None:
    result(tree, "CONV_2D").quantization.zeroPoint = None


def _no_number(tree: Any) -> None:
    result(tree, "CONV_2D").quantization.scale = [float("nan")]


def _other_file(tree: Any) -> None:
    operand(tree, "CONV_2D", 1).externalBuffer = 1


def _shared_over_and_over(tree: Any) -> None:
    tensor = operand(tree, "FULLY_CONNECTED", 1)
    tensor.shape, tree.buffers[tensor.buffer].data = [1 << 16], np.zeros(1 << 16, np.int8)
    tensor.quantization = None
    tree.subgraphs[0].tensors += [tensor] * 1000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_operand_out_of_range, "tensor 400 in the inputs of operator 0, but the model has 9 tensors"),
        (_negative_operand, "tensor -2 in the inputs of operator 0"),
        (_output_out_of_range, "tensor 77 in the graph's outputs"),
        (_buffer_out_of_range, "tensor 0 'picture' refers to buffer 99, but there are only"),
        (_code_out_of_range, "operator 3 refers to operator code 50, but there are only 4"),
        (_short_constant, r"of shape \[8, 3, 3, 3\] and type int8 has 215 bytes of data"),
        (_other_shape, r"of shape \[3, 3, 3, 9\] and type int8 has 216 bytes of data"),
        (_endless_shape, "2147483647, ...] and type int8 has 216 bytes"),
        (_missing_scale, "has 7 scales for 8 channels"),
        (_missing_zero_points, "has 1 scales and 0 zero points"),
        (_no_number, "has a scale that is not finite, as TensorFlow's old quantizer writes for an empty range"),
        (_other_file, "has its data in another file"),
        (_shared_over_and_over, "tensors that share buffers"),
        (lambda tree: tree.subgraphs.append(tree.subgraphs[0]), "2 subgraphs instead of one"),
        (lambda tree: tree.subgraphs.clear(), "0 subgraphs instead of one"),
    ],
)
def test_an_inconsistent_model_is_refused(change: Callable[[Any], None], said: str) -> None:
    """Indices out of range, and constants and scales of the wrong size, give one line that names the part."""
    with pytest.raises(InputError, match=said) as caught:
        read_model(edited(tiny_model("int8"), change), "it")
    assert "\n" not in str(caught.value)


def _both_places(tree: Any) -> None:
    buffer = tree.buffers[operand(tree, "CONV_2D", 1).buffer]
    buffer.offset, buffer.size = 16, len(buffer.data)


def _both_places_one_empty(tree: Any) -> None:
    _both_places(tree)
    tree.buffers[operand(tree, "CONV_2D", 1).buffer].data = np.zeros(0, np.uint8)


def _both_custom_options(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.customOptions, one.largeCustomOptionsOffset, one.largeCustomOptionsSize = np.zeros(3, np.uint8), 16, 3


def _constant_in_buffer_0(tree: Any) -> None:
    tensor = operand(tree, "CONV_2D", 1)
    tree.buffers[0].data, tensor.buffer = data(tree, tensor), 0


def _metadata_in_buffer_0(tree: Any) -> None:
    for one in (*tree.subgraphs[0].tensors, *tree.metadata):
        one.buffer = one.buffer or 1
    tree.buffers[1].data, tree.buffers[0].data = None, np.zeros(4, np.uint8)
    tree.metadata[0].buffer = 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_both_places, "buffer . has data both in its table and at offset 16, of which runtimes use the first"),
        (_both_places_one_empty, "buffer . has data both in its table and at offset 16"),
        (_both_custom_options, "operator 0 has data both in its table and at offset 16"),
        (_constant_in_buffer_0, "has its data in buffer 0, which means no data"),
        (_metadata_in_buffer_0, "metadata has its data in buffer 0"),
        (_no_number, "not finite"),
    ],
)
def test_an_ambiguous_file_is_refused_but_not_called_damaged(change: Callable[[Any], None], said: str) -> None:
    """Runtimes may read such a file as different models: correct weights could hide the ones a runtime uses."""
    with pytest.raises(InputError, match=said) as caught:
        read_model(edited(tiny_model("int8"), change), "it")
    assert "damaged" not in str(caught.value)


def test_a_buffer_0_without_references_may_hold_data() -> None:
    """It is an unused buffer like any other."""

    def change(tree: Any) -> None:
        for tensor in tree.subgraphs[0].tensors:
            if tensor.buffer == 0:
                tree.buffers.append(schema.BufferT())
                tensor.buffer = len(tree.buffers) - 1
        tree.buffers[0].data = np.zeros(4, np.uint8)

    assert read_model(edited(tiny_model("int8"), change)).buffers[0] == bytes(4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4020936\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"PK\x03\x04 something else", "19 bytes without the TFL3 file identifier"),
        (bytes(100), "100 bytes without the TFL3 file identifier"),
        (b"\x10\x00\x00\x00TFL3", "a damaged or truncated TensorFlow Lite file"),
        (struct.pack("<I4s", 0xFFFFFFFF, b"TFL3") + bytes(50), "4 bytes at offset 4294967295 of a file of 58 bytes"),
    ],
)
def test_a_file_that_is_not_a_model_is_refused_with_what_it_is(content: bytes, said: str) -> None:
    """An empty file, a Git LFS pointer, an HTML page, another format, and a header alone."""
    with pytest.raises(InputError, match=said):
        read_model(content)


def test_a_truncated_file_is_refused() -> None:
    """At any of many lengths up to 90 % of the file."""
    model = tiny_model("int8")

    def sound(length: int) -> bool:
        try:
            read_model(model[:length])
        except InputError:
            return False
        return True

    assert not any(map(sound, range(0, len(model) * 9 // 10, 97)))
    assert sound(len(model))


def test_paths_that_name_no_readable_file_are_refused(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe, and impossible names; reading the pipe does not block."""
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "missing", "No such file"),
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "something that is not a regular file"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("nul\0"), "null"),
    ):
        with pytest.raises(InputError, match=said):
            read_file(path)
