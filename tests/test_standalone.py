"""The standalone runtime: the reference kernels' bytes from plain C99, and a sound memory plan."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from pipeline.console import NoBars
from pipeline.cortex_m import tflm
from pipeline.cortex_m.standalone.emit import KERNELS, runtime_sources
from pipeline.cortex_m.standalone.layers import Program
from pipeline.cortex_m.standalone.lowering import lower
from pipeline.cortex_m.standalone.plan import Plan, plan
from pipeline.cortex_m.standalone.schedule import rows_read, steps
from pipeline.engine.work import model_file
from pipeline.platforms.subject import int8_inputs
from pipeline.request.request import Request
from pipeline.request.resolve import resolve
from recreate_model.support.arrays import Array
from recreate_model.support.errors import InputError
from recreate_model.tflite.interpret import Runner
from recreate_model.tflite.model_view import read_model
from tests.c_runtime import Library, compile_with, write
from tests.conftest import build
from tests.edited_models import code, data, edited, operand, operator
from tests.operator_models import KINDS, operator_model
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def small_model(finished_build: Request) -> bytes:
    """The smallest network of the family."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    return (machine.out / recipe.name / model_file(recipe)).read_bytes()


@pytest.fixture(scope="session")
def small_runtime(small_model: bytes, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(runtime_sources(small_model, "small"), tmp_path_factory.mktemp("runtime"))


def noise(model: bytes, count: int, seed: int = 0) -> Array:
    """Random pictures over all int8 values, int8 (count, ...)."""
    shape = read_model(model).input.shape[1:]
    return np.random.default_rng(seed).integers(-128, 128, (count, *shape)).astype(np.int8)


def reference(model: bytes, pictures: Array) -> Array:
    """Scores of LiteRT's reference kernels for the pictures, int8 (count, scores)."""
    runner = Runner(model, "reference")
    return np.stack([runner.run(picture[np.newaxis])[0].ravel() for picture in pictures])


# The same bytes


def test_the_small_network_gives_the_reference_kernels_bytes_on_200_pictures(
    small_model: bytes, small_runtime: Library, finished_build: Request
) -> None:
    """Procedural pictures, and noise that drives activations to the ends of their ranges."""
    recipe, machine = resolve(finished_build, NoBars(), may_fetch=False)
    procedural, _ = int8_inputs(recipe, machine, small_model, 150)
    pictures = np.concatenate([procedural, noise(small_model, 50)])
    np.testing.assert_array_equal(small_runtime.run_all(pictures), reference(small_model, pictures))


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_give_the_reference_kernels_bytes(kind: str, tmp_path: Path) -> None:
    """Paddings, strides, dilations, odd windows, averages over the border, ADD of a tensor with itself."""
    model = operator_model(kind)
    pictures = noise(model, 60)
    runtime = Library(runtime_sources(model, kind), tmp_path)
    np.testing.assert_array_equal(runtime.run_all(pictures), reference(model, pictures))


@pytest.mark.slow
def test_the_whole_network_gives_the_reference_kernels_bytes(tmp_path: Path) -> None:
    """Seeded weights at full size; no read of the arena finds a row overwritten."""
    request = Request(checkpoint="seeded", images="procedural", calib=10, limit=20, out=tmp_path / "out")
    build(request, ("quantize",))
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    model = (machine.out / recipe.name / model_file(recipe)).read_bytes()
    pictures, _ = int8_inputs(recipe, machine, model, 20)
    runtime = Library(runtime_sources(model, "whole"), tmp_path / "c", ("-O3", "-march=native"))
    np.testing.assert_array_equal(runtime.run_all(pictures), reference(model, pictures))
    program = lower(model, "whole")
    planned = plan(program)
    assert faults(program, planned) == []
    assert planned.arena_bytes < 220_000  # TensorFlow Lite Micro plans 1,505,280 for the activations


@pytest.mark.shared
def test_a_published_model_of_2021_runs_as_well(shared: Path, tmp_path: Path) -> None:
    """Another converter made it, with its tensors in another order."""
    model = (shared / "published" / "calibration-unknown-a.tflite").read_bytes()
    pictures = noise(model, 5)
    runtime = Library(runtime_sources(model, "published"), tmp_path, ("-O3", "-march=native"))
    np.testing.assert_array_equal(runtime.run_all(pictures), reference(model, pictures))


@pytest.mark.shared
def test_trained_weights_and_200_photographs_give_the_reference_kernels_bytes(shared: Path, tmp_path: Path) -> None:
    """The stand-in archive and real pictures that calibration did not use."""
    request = Request(
        checkpoint=str(shared / "checkpoint" / "mobilenet_v2_1.0_224.tgz"),
        images=str(shared / "imagenet_sample"),
        out=tmp_path / "out",
    )
    build(request, ("quantize",))
    recipe, machine = resolve(request, NoBars(), may_fetch=False)
    model = (machine.out / recipe.name / model_file(recipe)).read_bytes()
    pictures, source = int8_inputs(recipe, machine, model, 200)
    assert source == "folder"
    runtime = Library(runtime_sources(model, "trained"), tmp_path / "c", ("-O3", "-march=native"))
    np.testing.assert_array_equal(runtime.run_all(pictures), reference(model, pictures))


def test_a_run_does_not_depend_on_earlier_runs(small_model: bytes, small_runtime: Library) -> None:
    """The same picture gives the same scores, although another run used the same arena in between."""
    one, two = noise(small_model, 2)
    first = small_runtime.run(one)
    small_runtime.run(two)
    np.testing.assert_array_equal(small_runtime.run(one), first)


def test_one_changed_weight_is_noticed(small_model: bytes, tmp_path: Path) -> None:
    """The comparison detects a single INT8 weight of the first layer that is off by 64."""

    def change(tree: Any) -> None:
        values = data(tree, operand(tree, "CONV_2D", 1))
        values[0] ^= 64

    pictures = noise(small_model, 5)
    runtime = Library(runtime_sources(edited(small_model, change), "changed"), tmp_path)
    assert not np.array_equal(runtime.run_all(pictures), reference(small_model, pictures))


@pytest.mark.parametrize("equal", [500, 1001])
def test_many_equal_scores_are_supported(small_model: bytes, tmp_path: Path, equal: int) -> None:
    """For 500 equal logits the bytes agree. From 512 on the reference kernels abort; the runtime gives scores of 0."""

    def change(tree: Any) -> None:
        *_, classifier = [
            one for one in tree.subgraphs[0].operators if tree.operatorCodes[one.opcodeIndex].builtinCode == 3
        ]
        weights, bias = (tree.buffers[tree.subgraphs[0].tensors[at].buffer] for at in classifier.inputs[1:])
        weights.data = np.zeros_like(weights.data)
        logits = np.where(np.arange(1001) < equal, 0, -400_000).astype("<i4")
        bias.data = np.frombuffer(logits.tobytes(), np.uint8)

    flat = edited(small_model, change)
    pictures = noise(flat, 1)
    scores = Library(runtime_sources(flat, "flat"), tmp_path).run_all(pictures)
    expected = reference(flat, pictures) if equal == 500 else np.full_like(scores, -128)
    np.testing.assert_array_equal(scores, expected)


# Plain C


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("gcc", ("-O0",)),
        ("gcc", ("-O3", "-march=native")),
        ("clang", ("-O2",)),
        *(("arm-none-eabi-gcc", ("-O2", "-mthumb", f"-mcpu=cortex-{core}")) for core in ("m0", "m4", "m7", "m55")),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
@pytest.mark.parametrize("kind", ["residual", "dilated", "rows", "unread"])
def test_the_sources_compile_without_a_warning(
    tmp_path: Path, kind: str, compiler: str, flags: tuple[str, ...]
) -> None:
    """As strict C99, at several optimization levels and for several cores."""
    files = write(runtime_sources(operator_model(kind), kind), tmp_path)
    for file in files:
        compile_with(compiler, (*flags, "-c"), [file], tmp_path, f"{file}.o")


def test_only_two_headers_are_included(small_model: bytes) -> None:
    """They are stdint.h and string.h."""
    texts = runtime_sources(small_model, "small").values()
    assert {name for text in texts for name in re.findall(r"#include <(.*)>", text)} == {"stdint.h", "string.h"}


def test_only_memory_functions_are_linked(small_model: bytes, tmp_path: Path) -> None:
    """On a core without a floating-point unit, float operations would call the compiler's library."""
    files = write(runtime_sources(small_model, "small"), tmp_path)
    compile_with(
        "arm-none-eabi-gcc", ("-O2", "-mthumb", "-mcpu=cortex-m3", "-r", "-nostdlib"), files, tmp_path, "all.o"
    )
    listed = subprocess.run(
        ["arm-none-eabi-nm", "-u", "all.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert set(listed.split()) - {"U"} <= {"memcpy", "memset", "__aeabi_memset", "__aeabi_memcpy", "memmove"}
    assert "float" not in (tmp_path / KERNELS).read_text().replace("floating point", "")


def test_the_arena_is_the_only_writable_memory(small_model: bytes, tmp_path: Path) -> None:
    """Weights are constants, and there is no other variable."""
    texts = runtime_sources(small_model, "small")
    files = write(texts, tmp_path)
    compile_with("gcc", ("-O2", "-r", "-nostdlib"), files, tmp_path, "all.o")
    listed = subprocess.run(["size", "-A", "all.o"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    sizes = {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", listed, re.M)}
    (arena,) = re.findall(r"_ARENA_BYTES (\d+)", texts["small_run.h"])
    assert sum(size for name, size in sizes.items() if name.startswith(".data") and "ro" not in name) == 0
    assert int(arena) <= sum(size for name, size in sizes.items() if name.startswith(".bss")) <= int(arena) + 64


@pytest.mark.parametrize("kind", KINDS)
def test_sanitizers_find_nothing(kind: str, tmp_path: Path) -> None:
    """No access outside an array, no signed overflow, no invalid shift."""
    model = operator_model(kind)
    files = write({**runtime_sources(model, kind), "main.c": _program(kind)}, tmp_path)
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compile_with("gcc", flags, files, tmp_path, "program")
    pictures = noise(model, 3)
    done = subprocess.run([program], input=pictures.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int8).reshape(3, -1), reference(model, pictures))


def _program(name: str) -> str:
    return f"""\
#include <stdio.h>
#include "{name}_run.h"
int main(void) {{
    while (fread({name}_input(), 1, {name.upper()}_RUN_INPUT_BYTES, stdin) == {name.upper()}_RUN_INPUT_BYTES) {{
        {name}_run();
        fwrite({name}_output(), 1, {name.upper()}_RUN_OUTPUT_BYTES, stdout);
    }}
    return 0;
}}
"""


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_sources_are_the_same_every_time(small_model: bytes, tmp_path: Path, seed: str) -> None:
    """In another process, with another hash seed."""
    (tmp_path / "small.tflite").write_bytes(small_model)
    command = [sys.executable, "-m", "pipeline", "standalone", "--of", "small.tflite", "--out", "out", "--quiet"]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    written = {path.name: path.read_text() for path in (tmp_path / "out").glob("*/cortex_m/standalone/*")}
    assert written == runtime_sources(small_model, "small.tflite")


# Memory


def faults(program: Program, planned: Plan) -> list[str]:
    """Faults of a plan, found by executing every step with an arena that tracks the owner of each byte.

    A fault is a read of a row that was overwritten, or an access outside the arena. Each byte holds the number of
    the activation and row that were written there last; every step of a segment overwrites its scratch memory.
    """
    arena = np.full(planned.arena_bytes, -1, np.int64)
    found: list[str] = []

    def place(activation: int, row: int) -> slice:
        size, kept = program.activations[activation].row_bytes, planned.places[activation]
        start = kept.offset + row % kept.rows * size
        if start + size > planned.arena_bytes:
            found.append(f"row {row} of {activation} ends outside")
        return slice(start, start + size)

    def check(activation: int, row: int) -> None:
        if not np.all(arena[place(activation, row)] == activation * 1000 + row):
            found.append(f"row {row} of {activation} is gone")

    scratch = {
        number: (offset, max(program.layers[each].scratch_bytes(planned.blocks[each]) for each in segment.layers))
        for segment, offset in zip(planned.segments, planned.scratch, strict=True)
        for number in segment.layers
    }
    for row in range(program.activations[program.input].rows):
        arena[place(program.input, row)] = program.input * 1000 + row
    for step in steps(program, planned.segments):
        layer = program.layers[step.layer]
        offset, size = scratch[step.layer]
        if offset + size > planned.arena_bytes:
            found.append(f"scratch memory of {step.layer} ends outside")
        arena[offset : offset + size] = -2
        # ADD writes over what it reads, row by row; the others read all of it while they write.
        parts = (
            [(row, row + 1) for row in range(step.first, step.end)] if layer.kind == "add" else [(step.first, step.end)]
        )
        for first, end in parts:
            reads = [(source, row) for source in layer.inputs for row in rows_read(layer, program, first, end)]
            for source, row in reads:
                check(source, row)
            for row in range(first, end):
                arena[place(layer.output, row)] = layer.output * 1000 + row
            if layer.kind != "add":
                for source, row in reads:
                    check(source, row)
    for row in range(program.activations[program.output].rows):
        check(program.output, row)
    return found


@pytest.mark.parametrize("kind", [*KINDS, "small"])
def test_no_row_is_overwritten_while_it_is_needed(kind: str, small_model: bytes) -> None:
    """At every step of the program, each byte that is read belongs to the expected row."""
    program = lower(small_model if kind == "small" else operator_model(kind), kind)
    assert faults(program, plan(program)) == []


def test_a_plan_with_too_little_memory_has_faults(small_model: bytes) -> None:
    """One row less in a ring buffer, a lower offset of the last activation, or a smaller arena is enough."""
    program = lower(small_model, "small")
    sound = plan(program)
    for number, kept in enumerate(sound.places):
        row = program.activations[number].row_bytes
        tighter = [replace(kept, rows=kept.rows - 1)] if kept.rows > 1 else []
        for place in tighter:
            places = (*sound.places[:number], place, *sound.places[number + 1 :])
            assert faults(program, replace(sound, places=places)), (number, row)
    largest = max(range(len(sound.places)), key=lambda number: sound.places[number].offset)
    moved = replace(sound.places[largest], offset=sound.places[largest].offset - 4)
    places = (*sound.places[:largest], moved, *sound.places[largest + 1 :])
    assert faults(program, replace(sound, places=places))
    assert faults(program, replace(sound, arena_bytes=sound.arena_bytes - 4))


def test_rows_are_streamed_where_that_saves_memory_and_nowhere_else(small_model: bytes) -> None:
    """The late layers have most of the weights; they are not streamed, so they read their weights once."""
    program = lower(small_model, "small")
    streamed = [segment for segment in plan(program).segments if segment.streams]
    assert streamed[0].first == 0
    assert streamed[-1].last < len(program.layers) // 2


def test_the_arena_is_smaller_than_tensorflow_lite_micros_plan(small_model: bytes) -> None:
    """It is less than half of what TensorFlow Lite Micro plans for activations."""
    if not tflm.is_available():
        pytest.skip(f"{tflm.DISTRIBUTION} is not installed")
    head = tflm.measure(small_model, noise(small_model, 1), "small").head
    assert plan(lower(small_model, "small")).arena_bytes < head / 2


def test_streaming_saves_more_than_half_of_the_memory(small_model: bytes) -> None:
    """Without it, the peak would be the input and output of the largest layer."""
    program = lower(small_model, "small")
    largest = max(
        sum(
            program.activations[number].rows * program.activations[number].row_bytes
            for number in {*layer.inputs, layer.output}
        )
        for layer in program.layers
    )
    assert plan(program).arena_bytes < largest / 2


# What the runtime does not support


def _with_batch_of_two(tree: Any) -> None:
    for tensor in tree.subgraphs[0].tensors:
        if tree.buffers[tensor.buffer].data is None:
            tensor.shape = [2, *tensor.shape[1:]]


def _with_one_scale(tree: Any) -> None:
    quantization = operand(tree, "CONV_2D", 1).quantization
    quantization.scale, quantization.zeroPoint = quantization.scale[:1], quantization.zeroPoint[:1]


def _with_another_operator(tree: Any) -> None:
    operator(tree, "ADD").opcodeIndex = code(tree, "MAXIMUM")


def _with_a_tanh(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH


def _with_a_zero_point_in_weights(tree: Any) -> None:
    points = operand(tree, "CONV_2D", 1).quantization.zeroPoint
    operand(tree, "CONV_2D", 1).quantization.zeroPoint = [1, *points[1:]]


def _with_sums_beyond_32_bits(tree: Any) -> None:
    data(tree, operand(tree, "CONV_2D", 2))[:4] = np.frombuffer(np.int32(2**31 - 1).tobytes(), np.uint8)


def _with_a_stride_of_zero(tree: Any) -> None:
    operator(tree, "CONV_2D").builtinOptions.strideH = 0


def _without_options(tree: Any) -> None:
    one = operator(tree, "CONV_2D")
    one.builtinOptions, one.builtinOptionsType = None, 0


def _without_inputs(tree: Any) -> None:
    operator(tree, "CONV_2D").inputs = []


def _with_an_empty_window(tree: Any) -> None:
    operator(tree, "AVERAGE_POOL_2D").builtinOptions.filterHeight = 0


def _with_the_finest_scale(tree: Any) -> None:
    tree.subgraphs[0].tensors[tree.subgraphs[0].inputs[0]].quantization.scale = [1e-39]


def _with_a_constant_to_add(tree: Any) -> None:
    operator(tree, "ADD").inputs = [operator(tree, "ADD").inputs[0], operator(tree, "CONV_2D").inputs[1]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with_a_stride_of_zero, "operator 0 CONV_2D with a window of 3 x 3, strides \\(0, 2\\)"),
        (_without_options, "operator 0 CONV_2D with no option stride_h"),
        (_without_inputs, "operator 0 CONV_2D with 0 inputs and 1 outputs"),
        (_with_an_empty_window, "AVERAGE_POOL_2D with a window of 0 x 3"),
        (_with_the_finest_scale, "an input with scale 1e-39"),
        (_with_a_constant_to_add, "ADD with the constant"),
        (_with_another_operator, "found MAXIMUM \\(first at operator 9\\)"),
        (_with_one_scale, "operator 0 CONV_2D with per-tensor weights: 1 scales for 16 channels"),
        (_with_batch_of_two, "a batch of 2"),
        (_with_a_tanh, "operator 0 CONV_2D with the fused activation TANH"),
        (_with_a_zero_point_in_weights, "operator 0 CONV_2D with weights with a zero point"),
        (_with_sums_beyond_32_bits, "operator 0 CONV_2D with weights and biases whose sum may overflow 32 bits"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_the_runtime_does_not_support_is_refused(small_model: bytes, change: Any, words: str) -> None:
    """The error names the operator, its position and the fault."""
    with pytest.raises(InputError, match=words):
        runtime_sources(edited(small_model, change), "small")


def test_a_float_model_and_other_operators_are_refused(small_float: bytes) -> None:
    """The float network has the same operators in float32; the tiny model has a FULLY_CONNECTED."""
    with pytest.raises(InputError, match="float32"):
        runtime_sources(small_float, "float")
    with pytest.raises(InputError, match="FULLY_CONNECTED"):
        runtime_sources(tiny_model("int8"), "tiny")


def test_a_softmax_of_too_many_scores_is_refused() -> None:
    """The sum of 4,096 equal scores needs more than 31 bits; that of 4,095 fits."""

    def change(count: int) -> Any:
        def wider(tree: Any) -> None:
            for tensor in tree.subgraphs[0].tensors:
                tensor.shape = [1, count]

        return wider

    with pytest.raises(InputError, match="4096 scores, more than 4095"):
        lower(edited(operator_model("alone"), change(4096)), "wide")
    assert lower(edited(operator_model("alone"), change(4095)), "wide").layers[0].kind == "softmax"


def test_a_softmax_with_a_tiny_input_scale_is_refused() -> None:
    """The reference kernels abort on it."""

    def change(tree: Any) -> None:
        operand(tree, "SOFTMAX", 0).quantization.scale = [1e-9]

    with pytest.raises(
        InputError, match="SOFTMAX with beta times input scale 1e-09, which the reference kernels refuse"
    ):
        lower(edited(operator_model("alone"), change), "tiny")


def test_an_unused_branch_is_not_computed() -> None:
    """The runtime has neither its weights nor its memory."""
    model = operator_model("unread")
    kinds = [layer.kind for layer in lower(model, "unread").layers]
    assert [one.name for one in read_model(model).operators].count("CONV_2D") == 4
    assert kinds.count("conv") == 3


def test_rows_that_no_operator_reads_take_no_memory() -> None:
    """With a stride of eight, one of eight rows is read: a ring buffer of one row is enough."""
    program = lower(operator_model("leftovers"), "leftovers")
    wide = program.layers[0].output
    assert plan(program).places[wide].rows == 1


def test_a_model_with_an_unsupported_operator_leaves_no_file(small_model: bytes, tmp_path: Path) -> None:
    """The command names the operator in one line, ends with status 3, and writes no source."""
    (tmp_path / "other.tflite").write_bytes(edited(small_model, _with_another_operator))
    command = [sys.executable, "-m", "pipeline", "standalone", "--of", "other.tflite", "--out", "out"]
    command += ["--images", "procedural"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "MAXIMUM" in done.stderr
    assert list((tmp_path / "out").glob("*/cortex_m/*")) == []
