"""Proves whether a published INT8 file derives from a float checkpoint, without calibration pictures.

The activation ranges are recovered from the file. Every weight, scale and bias is compared with the checkpoint. Then
the file is rebuilt, by this program and by each toolchain that can have made it. The strongest result is identical
bytes; a value that the checkpoint cannot give refutes the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recreate_model.compare.diff import Comparison, Kind, Verdict, compare
from recreate_model.floats.frozen_graph import as_values, read_layers
from recreate_model.floats.graph_nodes import OtherLayoutError
from recreate_model.network import architecture
from recreate_model.network.spec import Model
from recreate_model.prove import consistency
from recreate_model.prove.background_row import with_background_of
from recreate_model.prove.consistency import LayerComparison, Refutation
from recreate_model.prove.conversion import ANY_SPAN, Conversion, conversion_of
from recreate_model.prove.corrections import CorrectionTable
from recreate_model.prove.membership import check_member
from recreate_model.prove.rebuild import OF_CONSTANTS, Corrections, rebuild, record
from recreate_model.prove.recover import Recovered, by_todays_converter, network_operators, recover
from recreate_model.prove.toolchain import TOOLCHAINS, Toolchain
from recreate_model.quantize import convert
from recreate_model.quantize.quantizer import (
    LEVELS,
    SOFTMAX,
    WITHOUT_RANGE,
    Generation,
    activation_parameters,
    parameters_of,
)
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, PipelineError
from recreate_model.tflite.model_view import ModelView, read_model

OURS = "this program"
_RELU6 = 6.00001  # the scale is rounded, so 255 times the scale may be slightly more than 6
_NARROW = 1.001e-6  # scales up to this may come from an almost empty range that the quantizer widened


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The float checkpoint that a file is compared with.

    Attributes:
        model: the MobileNetV2 variant.
        values: variables, as in `checkpoint.FloatWeights`.
        frozen_graph: the archive's frozen graph, serialized; None if it has none, and then no toolchain can be tried.
        background: whether it has class 0. If not, class 0 is taken from the published file and is not compared.
    """

    model: Model
    values: Mapping[str, Array]
    frozen_graph: bytes | None
    background: bool = True


@dataclass(frozen=True, eq=False)
class Attempt:
    """One attempt to rebuild the published file.

    Attributes:
        toolchain: name of the toolchain, or `OURS`.
        comparison: the published file compared with the rebuilt one; None if the attempt failed.
        model: the rebuilt file; empty if the attempt failed.
        corrections: corrections to the folding factors of this CPU, where the bytes needed them.
        failure: why the attempt failed.
        conversion: the toolchain's conversion; None for this program's own build, and if the attempt failed.
    """

    toolchain: str
    comparison: Comparison | None
    model: bytes = b""
    corrections: Corrections | None = None
    failure: PipelineError | None = None
    conversion: Conversion | None = None

    @property
    def identical(self) -> bool:
        return self.comparison is not None and self.comparison.verdict is Verdict.IDENTICAL

    @property
    def first_difference(self) -> str:
        """The difference that best shows why the files are not identical, as text; empty if there is none.

        For a file rebuilt by a toolchain, this is the first difference that another CPU cannot cause, if there is one.
        """
        if self.comparison is None or not self.comparison.decisive:
            return ""
        differences = self.comparison.differences if self.conversion else ()
        others = (difference for difference in differences if difference.kind not in OF_CONSTANTS)
        first = str(next(others, self.comparison.decisive[0]))
        return f"published file against rebuilt one: {_in_prove(first)}"


@dataclass(frozen=True, eq=False)
class Proof:
    """The result of `prove`.

    Attributes:
        verdict: IDENTICAL or CONSISTENT; SAME_GRAPH or DIFFERENT if the file is refuted.
        recovered: the ranges of the published file.
        layers: the comparison of every convolution with the checkpoint.
        refutations: values that the checkpoint cannot give, in the order of the graph.
        remarks: for a file that is IDENTICAL, its ranges that no calibration gives. For other files these refute.
        attempts: in the order they were made. If the verdict is IDENTICAL, the last one gave the published bytes.
        has_graph: whether the checkpoint has a frozen graph. Without one, no toolchain can be tried.
        has_background: whether the checkpoint has class 0. If not, class 0 was taken from the published file.
    """

    verdict: Verdict
    recovered: Recovered
    layers: tuple[LayerComparison, ...]
    refutations: tuple[Refutation, ...]
    remarks: tuple[Refutation, ...]
    attempts: tuple[Attempt, ...]
    has_graph: bool
    has_background: bool = True


@dataclass(frozen=True, eq=False)
class _Case:
    """A published file, a checkpoint, and the result of comparing the two."""

    published: bytes
    view: ModelView
    checkpoint: Checkpoint
    recovered: Recovered
    compared: tuple[LayerComparison, ...]


def prove(
    published: bytes,
    source: str,
    checkpoint: Checkpoint,
    toolchains: Sequence[Toolchain] | None,
    python_of: Callable[[Toolchain], Path],
) -> Proof:
    """Proves whether a published file derives from a checkpoint.

    Args:
        published: the contents of the file.
        source: name of the file for error messages.
        toolchains: toolchains to try; None tries the `candidates`.
        python_of: returns the Python interpreter of a toolchain's environment. If it raises PipelineError, the attempt
            is reported as failed.

    Raises:
        InputError: the file is not a full-integer INT8 model, or is another network.
    """
    view = read_model(published, source)
    check_member(view, checkpoint.model, source)
    if not checkpoint.background:
        values = with_background_of(checkpoint.values, checkpoint.model, view)
        checkpoint = replace(checkpoint, values=values)
    recovered = recover(view, source)
    layers = architecture.layers(checkpoint.model)
    compared = consistency.compare(view, layers, checkpoint.values, recovered.generation)
    case = _Case(published, view, checkpoint, recovered, compared)
    own = _own_build(case)
    ours = compare(published, own)
    # This program's build has the checkpoint's graph, so the published graph must be the same.
    same_graph = (ours.verdict if ours.apart_from_ends is None else ours.apart_from_ends).reaches(Verdict.SAME_GRAPH)
    ranges = tuple(_refuted_ranges(view, recovered))
    refutations = (
        *ranges,
        *(() if same_graph else _refuted_graph(ours)),
        *_refuted_conversions(view),
        *(refutation for layer in compared for refutation in layer.refutations),
    )
    attempts = [Attempt(OURS, ours, own)]
    remarks: tuple[Refutation, ...] = ()
    if ours.verdict is Verdict.IDENTICAL:
        # Identical bytes refute nothing. But the ranges came from the file, so invalid ones are reported.
        verdict, refutations, remarks = Verdict.IDENTICAL, (), ranges
    elif refutations:
        verdict = Verdict.SAME_GRAPH if same_graph else Verdict.DIFFERENT
    else:
        verdict = Verdict.CONSISTENT
        for chain in candidates(view, recovered.generation) if toolchains is None else toolchains:
            if checkpoint.frozen_graph is not None:
                attempts.append(_attempt(case, chain, python_of, checkpoint.frozen_graph))
            if attempts[-1].identical:
                verdict = Verdict.IDENTICAL
                break
    has_graph = checkpoint.frozen_graph is not None
    return Proof(verdict, recovered, compared, refutations, remarks, tuple(attempts), has_graph, checkpoint.background)


def candidates(view: ModelView, generation: Generation) -> tuple[Toolchain, ...]:
    """The toolchains that can have made a file, most likely first, inferred from its arithmetic and metadata."""
    versions = {
        Generation.TODAY: ("",),
        Generation.SCALE_FLOOR: ("2.5.0", "2.6.0"),
        Generation.DOUBLE: ("2.4.4",),
        Generation.STORED: ("",) if by_todays_converter(view) else ("2.5.0", "2.6.0", "2.4.4"),
    }[generation]
    quantizer = "old" if generation is Generation.STORED else "new"
    return tuple(chain for chain in TOOLCHAINS if chain.quantizer == quantizer and chain.version in versions)


def _refuted_ranges(view: ModelView, recovered: Recovered) -> Iterator[Refutation]:
    for activation in recovered.activations:
        if activation.span is None and not activation.without_range:
            yield Refutation(activation.tensor, "scale and zero point", "values that a range gives", activation.why)
    for operator in network_operators(view):
        found = parameters_of(view.tensors[operator.outputs[0]])
        if operator.options.get("fused_activation_function") == "RELU6" and found is not None:
            scale, zero_point = found
            within = zero_point == -128 and LEVELS * scale <= _RELU6
            # The quantizer widens an empty or almost empty range to both sides.
            empty = found == activation_parameters(0.0, 0.0, recovered.generation)
            if not (within or scale <= _NARROW or empty):
                low, high = -(zero_point + 128) * scale, (127 - zero_point) * scale
                name = view.tensors[operator.outputs[0]].name
                yield Refutation(name, "range", "0 to at most 6, because of ReLU6", f"{low:.9g} to {high:.9g}")
    for operator in network_operators(view):
        if operator.name in WITHOUT_RANGE:
            tensor, given = (view.tensors[index] for index in (operator.outputs[0], operator.inputs[0]))
            found, expected = parameters_of(tensor), SOFTMAX if operator.name == "SOFTMAX" else parameters_of(given)
            if found != expected:
                what = f"scale and zero point of the {operator.name}"
                yield Refutation(tensor.name, what, f"{expected}", f"{found}")


def _refuted_conversions(view: ModelView) -> Iterator[Refutation]:
    """Type conversions other than between int8 and float32 or uint8, directly at the graph input or output."""
    for operator in view.operators:
        if operator in network_operators(view):
            continue
        first, last = (view.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        at_input = operator is view.operators[0] and operator.inputs[0] == view.inputs[0]
        at_output = operator is view.operators[-1] and operator.outputs[0] == view.outputs[0]
        outer, inner = (first, last) if at_input else (last, first)
        # Between int8 and uint8 only the zero point changes, by 128. Another scale would change the values.
        scale, zero_point = parameters_of(outer) or (0.0, 0)
        integer = outer.dtype == "uint8" and (scale, zero_point - 128) == parameters_of(inner)
        floating = outer.dtype == "float32" and operator.name == ("QUANTIZE" if at_input else "DEQUANTIZE")
        if not (
            (at_input or at_output) and (integer or floating) and inner.dtype == "int8" and outer.shape == inner.shape
        ):
            yield Refutation(
                outer.name,
                f"{operator.name} operator",
                "a conversion between int8 and float32 or uint8 at the graph input or output, with equal shape, and "
                "with equal scale for uint8",
                f"{first.dtype} {first.shape} to {last.dtype} {last.shape}, scale and zero point "
                f"{parameters_of(first)} to {parameters_of(last)}",
            )


def _refuted_graph(comparison: Comparison) -> Iterator[Refutation]:
    """Differences between the published graph and the checkpoint's, except type conversions at inputs and outputs."""
    for difference in comparison.differences:
        if difference.kind is Kind.CONVERSIONS or difference.kind.leaves.reaches(Verdict.SAME_GRAPH):
            continue
        what = f"{difference.kind.label} of {difference.where}"
        yield Refutation(difference.name, what, "another graph", _in_prove(difference.what))


def _in_prove(difference: str) -> str:
    """The text of a difference with the two models named as `prove` knows them."""
    return difference.replace("the first model", "the published file").replace("the second model", "the rebuilt one")


def _own_build(case: _Case) -> bytes:
    """This program's own build from the recovered ranges, with BatchNorm folded in float64 and today's converter."""
    model = case.checkpoint.model
    graph = architecture.frozen_graph(model, case.checkpoint.values)
    float_model = convert.convert_float(graph)
    names = convert.activations(float_model)
    spans = {
        name: activation.span
        for name, activation in zip(names, case.recovered.activations, strict=True)
        if activation.span is not None
    }
    # A missing range is reported elsewhere. Here any range will do, as only the graph matters then.
    spans |= {name: ANY_SPAN for name in convert.activations_with_a_range(float_model) if name not in spans}
    return convert.quantize(float_model, spans)


def _attempt(case: _Case, chain: Toolchain, python_of: Callable[[Toolchain], Path], graph: bytes) -> Attempt:
    spans = np.array([activation.span or ANY_SPAN for activation in case.recovered.activations], np.float32)
    try:
        conversion = conversion_of(
            chain,
            python_of(chain),
            graph,
            case.checkpoint.model,
            _values(case.checkpoint, graph),
            spans,
            (case.view.input.dtype, case.view.output.dtype),
        )
        rebuilt = rebuild(case.published, conversion, case.compared)
        return Attempt(chain.name, rebuilt.comparison, rebuilt.model, rebuilt.corrections, conversion=conversion)
    except PipelineError as error:
        return Attempt(chain.name, None, failure=error)


def _values(checkpoint: Checkpoint, graph: bytes) -> Mapping[str, Array]:
    """The values that a converter folds: the graph's constants, or the variables if the graph has another layout."""
    try:
        return as_values(read_layers(graph, checkpoint.model, "the checkpoint's frozen graph"))
    except OtherLayoutError:
        return checkpoint.values


def table_of(published: bytes, proof: Proof) -> CorrectionTable:
    """The table of corrections to folding factors for a file that a toolchain has rebuilt.

    Args:
        published: the contents of the file.
        proof: the result of `prove` for it.

    Raises:
        CheckError: no toolchain rebuilt the file, or no corrections give its bytes.
        ToolError: the toolchain failed.
    """
    last = proof.attempts[-1]
    if not (last.identical and last.conversion):
        raise CheckError(
            expected="a toolchain to rebuild the file byte for byte, so that its folding factors can be recorded",
            found=f"{last.comparison.verdict.name if last.comparison else 'no file'} from {last.toolchain}",
            done="no table was written",
            next_step="leave --record out, or give another --toolchain",
        )
    return CorrectionTable(
        digest_bytes(last.conversion.job.graph),
        last.conversion.chain.option,
        digest_bytes(published),
        record(published, last.conversion, proof.layers),
    )
