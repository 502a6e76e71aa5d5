"""The model card as `README.md` and as the machine-readable `definition.yaml`, in the form of the published card.

Their content comes from the model file, the recipe and measurements; what was not measured reads "not measured". They
contain no time, host or path, so equal builds have equal cards.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pipeline.card.card_text import README
from pipeline.card.card_words import description_of, warnings_of, words_of
from pipeline.engine.work import LABELS_FILE
from pipeline.ethos_u.targets import variant_name
from pipeline.platforms.evidence import PLATFORMS, STATUSES, Evidence
from recreate_model.recipe import Recipe, Target
from recreate_model.support.digest import Json, digest_bytes
from recreate_model.support.errors import CheckError
from recreate_model.tflite.model_view import ModelView, Tensor, read_model

_TICK = ":heavy_check_mark:"
_FAILED = "check failed"
_MARKS = {"ran": _TICK, "compiled": _TICK, "analyzed": "analyzed", "not run": "not measured"}
_KEY = {
    _TICK: "Ran on what the evidence names, an emulator or a software device too, or was compiled for this platform.",
    "analyzed": "Examined without running or compiling it, as the evidence says.",
    "not measured": "Neither run nor compiled here: no claim that it works on this platform, nor that it does not.",
    _FAILED: "A check of this platform failed, as the evidence says.",
}


@dataclass(frozen=True)
class Measured:
    """A proportion with its 95 % Wilson interval, on `n` pictures of `dataset`, as the card calls it."""

    value: float
    low: float
    high: float
    n: int
    dataset: str


def card_readme(
    recipe: Recipe,
    model: bytes,
    accuracy: Measured | None,
    agreement: Measured | None,
    evidence: Sequence[Evidence],
    files: Sequence[tuple[str, str]],
    *,
    variants: Sequence[Json] = (),
    refuted: Sequence[str] = (),
    remarks: Sequence[str] = (),
    left_out: Sequence[str] = (),
    tools: Mapping[str, str] | None = None,
    conversion: str = "",
) -> str:
    """The card as Markdown.

    Args:
        model: the bytes of the `.tflite` file of `recipe`.
        accuracy: top-1 of this file; None if it was not measured.
        agreement: share of pictures with the same top-1 class as the float model; None if it was not measured.
        evidence: of the platforms, in any order; a platform without any reads "not measured".
        files: the other files of the build, as (path relative to the card, SHA-256).
        variants: the compiled models, as `vela.vela_table` gives them.
        refuted: names of the claims that do not hold, from verification.
        remarks: sentences on the model, from verification.
        left_out: sentences on what was not made of a given model, and why.
        tools: name -> version of the tools that made the model.
        conversion: as for `card_words.words_of`.

    Raises:
        InputError: `model` is not a TensorFlow Lite file.
        CheckError: it is not an INT8 classifier of the recipe's resolution.
    """
    view = _checked_view(recipe, model)
    measured = [figure for figure in (accuracy, agreement) if figure]
    labeled = any(path == LABELS_FILE for path, _ in files)
    words = words_of(recipe, model, tools or {}, labeled, conversion)
    failed = f"Verification failed: {', '.join(refuted)}." * bool(refuted)
    warnings = [words.warning, *warnings_of(recipe), *remarks, failed]
    platforms = "\n".join(_platform_row(platform, evidence) for platform in PLATFORMS)
    return README.format(
        recipe=recipe,
        words=words,
        size=view.size,
        warning="".join(f"> **{line}**\n\n" for line in warnings if line),
        left_out="".join(f"\n{line}\n" for line in left_out),
        files=_files_section(files),
        sha1=digest_bytes(model, "sha1"),
        sha256=digest_bytes(model),
        platforms=platforms,
        # Only marks in use are explained: a card without evidence has no tick anywhere.
        key="\n".join(f"* {mark} - {meaning}" for mark, meaning in _KEY.items() if f" | {mark} | " in platforms),
        dataset=_cell(measured[0].dataset) if measured else "not measured",
        accuracy=_figures(accuracy),
        agreement=_figures(agreement),
        evidence=_evidence_section(evidence),
        ethos_u=_ethos_u_section(variants),
        input_table=_node_tables("Input Node Name", view, view.inputs, recipe),
        output_table=_node_tables("Output Node Name", view, view.outputs, recipe),
    )


def card_definition(recipe: Recipe, model: bytes, accuracy: Measured | None, files: Sequence[tuple[str, str]]) -> str:
    """The card as YAML, with the published keys in the published order.

    A missing value is null: `benchmark` if nothing was measured, the paths of test vectors if `files` has none below
    `testing_input/` and `testing_output/`. Arguments and errors as for `card_readme`.
    """
    import yaml  # only a card needs it

    view = _checked_view(recipe, model)
    words = words_of(recipe, model, {}, labeled=True)
    input_nodes = [
        {
            "description": description_of(view, tensor, recipe),
            "example_input": {"path": _test_vectors("testing_input", tensor, files)},
            "name": tensor.name,
            "shape": list(tensor.shape),
        }
        for tensor in (view.tensors[index] for index in view.inputs)
    ]
    output_nodes = [
        {
            "description": description_of(view, tensor, recipe),
            "name": tensor.name,
            "shape": list(tensor.shape),
            "test_output_path": _test_vectors("testing_output", tensor, files),
        }
        for tensor in (view.tensors[index] for index in view.outputs)
    ]
    definition = {
        "benchmark": _benchmark(accuracy),
        "description": f"{words.warning} {words.description}".lstrip(),
        "license": ["Apache-2.0"],
        "network": {
            "file_size_bytes": view.size,
            "filename": f"{recipe.name}.tflite",
            "framework": "TensorFlow Lite",
            "hash": {"algorithm": "sha1", "value": digest_bytes(model, "sha1")},
            "provenance": words.paper or None,
        },
        "network_parameters": {"input_nodes": input_nodes, "output_nodes": output_nodes},
        "operators": {"TensorFlow Lite": list(view.operator_names)},
        "paper": words.paper or None,
    }
    # Wide, so that no text is broken over lines, as in the published file.
    return str(yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=10_000))


def _checked_view(recipe: Recipe, model: bytes) -> ModelView:
    """The model's view, checked to take a picture and give classes in INT8 as the card says, unless it was given."""
    view = read_model(model)
    if recipe.given:
        return view
    interface = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    picture = (1, recipe.model.resolution, recipe.model.resolution, 3)
    int8 = all(tensor.dtype == "int8" and tensor.quantization for tensor in interface)
    ranks = [len(tensor.shape) for tensor in interface]
    if not (int8 and ranks == [4, 2] and len(view.inputs) == 1 and view.input.shape == picture):
        raise CheckError(
            expected=f"one quantized int8 {picture} in and one int8 (1, classes) out, for the recipe {recipe.name}",
            found=", ".join(f"{tensor.dtype} {tensor.shape}" for tensor in interface) or "no inputs or outputs",
            done="no card was written",
            next_step="python -m pipeline quantize",
        )
    return view


def _platform_row(platform: str, evidence: Sequence[Evidence]) -> str:
    known = sorted((e for e in evidence if e.platform == platform), key=lambda e: STATUSES.index(e.status))
    mark = _MARKS[known[0].status if known else "not run"]
    if not all(row.holds for row in known):
        mark = _FAILED
    return f"| {platform} | {mark} | {'<br>'.join(_cell(row.sentence) for row in known)} |"


def _evidence_section(evidence: Sequence[Evidence]) -> str:
    """The tools of each check and what it does not show; without times, which differ from run to run."""
    rows = "".join(
        f"| {row.platform} | {_cell(row.what)} | {_cell(', '.join(row.tools))} | {_cell(row.note)} |\n"
        for platform in PLATFORMS
        for row in evidence
        if row.platform == platform and (row.tools or row.note)
    )
    head = "| Platform | Check | Tools | What it does not show |\n|---|---|---|---|\n"
    return f"\n### Evidence\n{head}{rows}" if rows else ""


def _files_section(files: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"| [{_cell(path)}]({quote(path)}) | `{sha256}` |\n" for path, sha256 in files)
    return f"\n## Files\n| File | SHA-256 |\n|------|---------|\n{rows}" if rows else ""


def _figures(measured: Measured | None) -> str:
    if measured is None:
        return "not measured | |"
    return f"{measured.value:.3f} | {measured.low:.3f} to {measured.high:.3f} | {measured.n}"


def _ethos_u_section(variants: Sequence[Json]) -> str:
    rows = "".join(
        f"| {variant_name(Target.from_json(row['target']))} | {row['target']['memory_mode']} | "
        f"{row['sram_needed_kib']:,.0f} | {row['dram_kib']:,.0f} | {row['flash_needed_kib']:,.0f} | "
        f"{row['inferences_per_second']:,.1f} |\n"
        for row in variants
    )
    head = "| Target | Memory mode | SRAM KiB | DRAM KiB | Flash KiB | Inferences/s |\n|---|---|--:|--:|--:|--:|\n"
    return f"\n### Ethos U, as Vela estimates it\n{head}{rows}" if rows else ""


def _benchmark(accuracy: Measured | None) -> Json:
    if accuracy is None:
        return None
    # The first key is the published one; an accuracy without its interval and n says little.
    top1, low, high = (round(value, 3) for value in (accuracy.value, accuracy.low, accuracy.high))
    return {accuracy.dataset: {"top-1-accuracy": top1, "top-1-interval-95": [low, high], "pictures": accuracy.n}}


def _node_tables(heading: str, view: ModelView, indices: Sequence[int], recipe: Recipe) -> str:
    tensors = [view.tensors[index] for index in indices]
    return "\n\n".join(_node_table(heading, tensor, description_of(view, tensor, recipe)) for tensor in tensors)


def _node_table(heading: str, tensor: Tensor, description: str) -> str:
    assert tensor.quantization is not None  # _checked_view checks it
    columns = (
        (heading, 200, tensor.name),
        ("Shape", 100, str(tensor.shape)),
        ("Type", 100, tensor.dtype),
        ("Scale", 100, f"{tensor.quantization.scales[0]:.9g}"),  # nine digits identify a float32
        ("Zero Point", 100, str(tensor.quantization.zero_points[0])),
        ("Description", 300, description),
    )
    heads = "".join(f'        <th width="{width}">{name}</th>\n' for name, width, _ in columns)
    cells = "".join(f"        <td>{html.escape(value)}</td>\n" for _, _, value in columns)
    return f"<table>\n    <tr>\n{heads}    </tr>\n    <tr>\n{cells}    </tr>\n</table>"


def _test_vectors(root: str, tensor: Tensor, files: Sequence[tuple[str, str]]) -> str | None:
    folder = f"{root}/{tensor.name}"
    return folder if any(path.startswith(f"{folder}/") for path, _ in files) else None


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")  # a bar or a line break would break the table
