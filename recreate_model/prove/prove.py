"""Whether a published INT8 file is what a float checkpoint gives, shown without one calibration picture.

The ranges are recovered from the file; every weight, scale and bias is held against the checkpoint; and the file is
made again, by this program and by each toolchain that can have made it. Its bytes are the strongest answer; a number
that the checkpoint cannot give is the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recreate_model.compare.diff import Comparison, Kind, Verdict, compare
from recreate_model.floats.frozen_graph import as_values, read_layers
from recreate_model.floats.graph_nodes import OtherLayoutError
from recreate_model.network import mobilenet_v2
from recreate_model.prove import consistency
from recreate_model.prove.background_row import with_background_of
from recreate_model.prove.consistency import Layerwise, Refutation
from recreate_model.prove.conversion import ANY_SPAN, Conversion, conversion_of
from recreate_model.prove.membership import check_member
from recreate_model.prove.moves import MoveTable
from recreate_model.prove.rebuild import OF_CONSTANTS, Moves, rebuild, record
from recreate_model.prove.recover import Recovered, by_todays_converter, network_operators, recover
from recreate_model.prove.toolchain import TOOLCHAINS, Toolchain
from recreate_model.quantize import convert
from recreate_model.quantize.quantiser import (
    LEVELS,
    SOFTMAX,
    WITHOUT_RANGE,
    Generation,
    activation_parameters,
    parameters_of,
)
from recreate_model.recipe import Model
from recreate_model.support.arrays import Array
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, PipelineError
from recreate_model.tflite.model_view import ModelView, read_model

OURS = "this program"
_RELU6 = 6.00001  # a scale is rounded, so its 255 steps may reach a little further
_NARROW = 1.001e-6  # scales of ranges that a quantiser may have widened


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file is held against.

    Attributes:
        values: variables, as in `checkpoint.FloatWeights`.
        frozen_graph: the archive's own, serialised; None where it has none, and then no toolchain can be tried.
        background: whether it has class 0; where it has not, that of the published file is taken, and proves nothing.
    """

    model: Model
    values: Mapping[str, Array]
    frozen_graph: bytes | None
    background: bool = True


@dataclass(frozen=True, eq=False)
class Attempt:
    """One way of making the file again.

    Attributes:
        comparison: of the published file with the one made; None where it could not be made.
        model: the one made; empty where it could not be.
        moves: of folding constants, where those of this CPU did not give the bytes.
        failure: why it could not be made.
        conversion: by a toolchain; None for this program's own build, and where it could not be made.
    """

    toolchain: str
    comparison: Comparison | None
    model: bytes = b""
    moves: Moves | None = None
    failure: PipelineError | None = None
    conversion: Conversion | None = None

    @property
    def identical(self) -> bool:
        return self.comparison is not None and self.comparison.verdict is Verdict.IDENTICAL

    @property
    def first_difference(self) -> str:
        """In words; of a toolchain's file one that no other CPU explains comes first. Empty where there is none."""
        if self.comparison is None or not self.comparison.decisive:
            return ""
        others = (each for each in self.comparison.differences if self.conversion and each.kind not in OF_CONSTANTS)
        return str(next(others, self.comparison.decisive[0]))


@dataclass(frozen=True, eq=False)
class Proof:
    """What was found, weakest claim first: layers, attempts, verdict.

    Attributes:
        verdict: IDENTICAL, CONSISTENT; or, refuted, SAME_GRAPH or DIFFERENT.
        recovered: the ranges of the published file.
        layers: every convolution against the checkpoint.
        refutations: what the checkpoint cannot give, in the order of the graph; empty where nothing is refuted.
        remarks: of a file that is IDENTICAL, the ranges that no calibration gives; elsewhere they refute.
        attempts: in the order they were made; the last one gave the bytes where the verdict is IDENTICAL.
        has_graph: whether the checkpoint has a frozen graph, without which no toolchain can be tried.
        has_background: whether it has class 0, which else is the published file's own.
    """

    verdict: Verdict
    recovered: Recovered
    layers: tuple[Layerwise, ...]
    refutations: tuple[Refutation, ...]
    remarks: tuple[Refutation, ...]
    attempts: tuple[Attempt, ...]
    has_graph: bool
    has_background: bool = True


@dataclass(frozen=True, eq=False)
class _Case:
    """A published file, the checkpoint, and what comparing the two gave."""

    published: bytes
    view: ModelView
    checkpoint: Checkpoint
    recovered: Recovered
    compared: tuple[Layerwise, ...]


def prove(
    published: bytes,
    source: str,
    checkpoint: Checkpoint,
    toolchains: Sequence[Toolchain] | None,
    python_of: Callable[[Toolchain], Path],
) -> Proof:
    """Holds a published file against a checkpoint.

    Args:
        source: what to call the file in an error.
        toolchains: to try; None tries those that leave the marks the file has.
        python_of: gives the Python of a toolchain's environment, or raises PipelineError where it cannot be had.

    Raises:
        InputError: not a full-integer INT8 model, or one of another network.
    """
    view = read_model(published, source)
    check_member(view, checkpoint.model, source)
    if not checkpoint.background:
        values = with_background_of(checkpoint.values, checkpoint.model, view)
        checkpoint = replace(checkpoint, values=values)
    recovered = recover(view, source)
    layers = mobilenet_v2.layers(checkpoint.model)
    compared = consistency.compare(view, layers, checkpoint.values, recovered.generation)
    case = _Case(published, view, checkpoint, recovered, compared)
    own = _own_build(case)
    ours = compare(published, own)
    # Ours has the checkpoint's graph, so a graph that differs from it is not the checkpoint's.
    same_graph = (ours.verdict if ours.apart_from_ends is None else ours.apart_from_ends).reaches(Verdict.SAME_GRAPH)
    ranges = tuple(_refuted_ranges(view, recovered))
    refutations = (
        *ranges,
        *(() if same_graph else _refuted_graph(ours)),
        *_refuted_ends(view),
        *(each for layer in compared for each in layer.refutations),
    )
    attempts = [Attempt(OURS, ours, own)]
    remarks: tuple[Refutation, ...] = ()
    if ours.verdict is Verdict.IDENTICAL:
        # The bytes are the checkpoint's, so nothing refutes; but the ranges are the file's, and may have been made up.
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
    """The toolchains that leave the marks a file has, the most likely first."""
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
            yield Refutation(activation.tensor, "scale and zero point", "those of some range", activation.why)
    for operator in network_operators(view):
        found = parameters_of(view.tensors[operator.outputs[0]])
        if operator.options.get("fused_activation_function") == "RELU6" and found is not None:
            scale, zero_point = found
            within = zero_point == -128 and LEVELS * scale <= _RELU6
            # A range that is empty, or next to it, is widened to both sides.
            empty = found == activation_parameters(0.0, 0.0, recovered.generation)
            if not (within or scale <= _NARROW or empty):
                low, high = -(zero_point + 128) * scale, (127 - zero_point) * scale
                name = view.tensors[operator.outputs[0]].name
                yield Refutation(name, "range", "0 to at most 6, as ReLU6 gives", f"{low:.9g} to {high:.9g}")
    for operator in network_operators(view):
        if operator.name in WITHOUT_RANGE:
            tensor, given = (view.tensors[index] for index in (operator.outputs[0], operator.inputs[0]))
            found, expected = parameters_of(tensor), SOFTMAX if operator.name == "SOFTMAX" else parameters_of(given)
            if found != expected:
                what = f"scale and zero point of the {operator.name}"
                yield Refutation(tensor.name, what, f"{expected}", f"{found}")


def _refuted_ends(view: ModelView) -> Iterator[Refutation]:
    """An operator at an end may turn the int8 activation from or to float32 or uint8, once, and do nothing else."""
    ends = [operator for operator in view.operators if operator not in network_operators(view)]
    for operator in ends:
        first, last = (view.tensors[index] for index in (operator.inputs[0], operator.outputs[0]))
        at_input = operator is view.operators[0] and operator.inputs[0] == view.inputs[0]
        at_output = operator is view.operators[-1] and operator.outputs[0] == view.outputs[0]
        outer, inner = (first, last) if at_input else (last, first)
        # From uint8 and back the levels only move; another scale would compute something else.
        scale, zero_point = parameters_of(outer) or (0.0, 0)
        whole = outer.dtype == "uint8" and (scale, zero_point - 128) == parameters_of(inner)
        floating = outer.dtype == "float32" and operator.name == ("QUANTIZE" if at_input else "DEQUANTIZE")
        if not (
            (at_input or at_output) and (whole or floating) and inner.dtype == "int8" and outer.shape == inner.shape
        ):
            yield Refutation(
                outer.name, f"the {operator.name}", "int8 from or to float32 or uint8, at an end", "another"
            )


def _refuted_graph(comparison: Comparison) -> Iterator[Refutation]:
    """Where a file's graph is not ours; operators at its ends are looked at by themselves."""
    for each in comparison.differences:
        if each.kind is Kind.CONVERSIONS or each.kind.leaves.reaches(Verdict.SAME_GRAPH):
            continue
        yield Refutation(each.name, f"{each.kind.label} of {each.where}", "the checkpoint's network", each.what)


def _own_build(case: _Case) -> bytes:
    """This program's own build from the recovered ranges: BatchNorm folded in float64, today's converter."""
    model = case.checkpoint.model
    graph = mobilenet_v2.frozen_graph(model, case.checkpoint.values)
    float_model = convert.convert_float(graph)
    names = convert.activations(float_model)
    spans = {
        name: activation.span
        for name, activation in zip(names, case.recovered.activations, strict=True)
        if activation.span is not None
    }
    # A range that was not found is reported; any other will do here, where the graph is what matters.
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
        return Attempt(chain.name, rebuilt.comparison, rebuilt.model, rebuilt.moves, conversion=conversion)
    except PipelineError as error:
        return Attempt(chain.name, None, failure=error)


def _values(checkpoint: Checkpoint, graph: bytes) -> Mapping[str, Array]:
    """What a converter folds: the graph's own constants, or, where they cannot be found in it, the variables."""
    try:
        return as_values(read_layers(graph, checkpoint.model, "the checkpoint's frozen graph"))
    except OtherLayoutError:
        return checkpoint.values


def table_of(published: bytes, proof: Proof) -> MoveTable:
    """The table of moves of a file that a toolchain has made again.

    Raises:
        CheckError: none has, or no table gives its bytes.
        ToolError: the toolchain failed.
    """
    last = proof.attempts[-1]
    if not (last.identical and last.conversion):
        raise CheckError(
            expected="a file that a toolchain makes again, byte for byte, to record its folding factors",
            found=f"{last.toolchain}: {last.comparison.verdict.name if last.comparison else 'not made'}",
            done="no table was written",
            next_step="leave --record out, or give another --toolchain",
        )
    return MoveTable(
        digest_bytes(last.conversion.job.graph),
        last.conversion.chain.option,
        digest_bytes(published),
        record(published, last.conversion, proof.layers),
    )
