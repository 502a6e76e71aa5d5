"""The model card, `README.md` and its machine-readable twin `definition.yaml`, in the form of the published ones.

Everything in them comes from the model file, the recipe, or something that was measured and is handed in. What was not
measured reads "not measured". There is no clock, host or path of the machine in them, so equal builds have equal cards.
Both lie in the folder of a build, two levels below the project's root.
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
_MARKS = {"ran": _TICK, "compiled": _TICK, "analysed": "analysed", "not run": "not measured"}
_KEY = {
    _TICK: "Ran on what the evidence names, an emulator or a software device too, or was compiled for this platform.",
    "analysed": "Examined without running or compiling it, as the evidence says.",
    "not measured": "Neither run nor compiled here: no claim that it works on this platform, nor that it does not.",
    _FAILED: "A check of this platform failed, as the evidence says.",
}


@dataclass(frozen=True)
class Measured:
    """A proportion with its Wilson interval at 95 %, on `n` pictures of what the card shall call `dataset`."""

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
        accuracy: of this very file; None where it was not measured.
        agreement: of the INT8 model's winning class with the float model's; None where it was not measured.
        evidence: of the platforms, in any order; one without any reads "not measured".
        files: what else the build made: path relative to the card, and SHA-256.
        variants: the compiled models, as `vela.vela_table` gives them.
        refuted: what was claimed of the model and does not hold, as verification names it.
        remarks: sentences on the model that verification has.
        left_out: sentences on what was not made of a given model, and why.
        tools: name to version of what made the model.
        conversion: as for `card_words.words_of`.

    Raises:
        InputError: `model` is not a TensorFlow Lite file.
        CheckError: it is not an INT8 classifier of the recipe's resolution.
    """
    view = _checked_view(recipe, model)
    measured = [figure for figure in (accuracy, agreement) if figure]
    labelled = any(path == LABELS_FILE for path, _ in files)
    words = words_of(recipe, model, tools or {}, labelled, conversion)
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

    What is not there is null and its key stays: `benchmark` where nothing was measured, the paths of the test vectors
    where `files` has none below `testing_input/` and `testing_output/`. Arguments and errors as for `card_readme`.
    """
    import yaml  # only a card needs it

    view = _checked_view(recipe, model)
    words = words_of(recipe, model, {}, labelled=True)
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
    """The model, if the words of the card (a picture in, classes out, INT8) are true of it, or it was given."""
    view = read_model(model)
    if recipe.given:
        return view
    ends = [view.tensors[index] for index in (*view.inputs, *view.outputs)]
    picture = (1, recipe.model.resolution, recipe.model.resolution, 3)
    int8 = all(tensor.dtype == "int8" and tensor.quantisation for tensor in ends)
    ranks = [len(tensor.shape) for tensor in ends]
    if not (int8 and ranks == [4, 2] and len(view.inputs) == 1 and view.input.shape == picture):
        raise CheckError(
            expected=f"one quantised int8 {picture} in and one int8 (1, classes) out, for the recipe {recipe.name}",
            found=", ".join(f"{tensor.dtype} {tensor.shape}" for tensor in ends) or "no inputs or outputs",
            done="no card was written",
            next_step="python -m pipeline quantize",
        )
    return view


def _platform_row(platform: str, evidence: Sequence[Evidence]) -> str:
    known = sorted((e for e in evidence if e.platform == platform), key=lambda e: STATUSES.index(e.status))
    mark = _MARKS[known[0].status if known else "not run"]
    if not all(each.holds for each in known):
        mark = _FAILED
    return f"| {platform} | {mark} | {'<br>'.join(_cell(each.sentence) for each in known)} |"


def _evidence_section(evidence: Sequence[Evidence]) -> str:
    """With what each check was done and what it does not show; not the time, which is another every time."""
    rows = "".join(
        f"| {each.platform} | {_cell(each.what)} | {_cell(', '.join(each.tools))} | {_cell(each.note)} |\n"
        for platform in PLATFORMS
        for each in evidence
        if each.platform == platform and (each.tools or each.note)
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
        f"| {variant_name(Target(**row['target']))} | {row['target']['memory_mode']} | "
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
    assert tensor.quantisation is not None  # _checked_view holds it
    columns = (
        (heading, 200, tensor.name),
        ("Shape", 100, str(tensor.shape)),
        ("Type", 100, tensor.dtype),
        ("Scale", 100, f"{tensor.quantisation.scales[0]:.9g}"),  # nine digits give a float32 back exactly
        ("Zero Point", 100, str(tensor.quantisation.zero_points[0])),
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
