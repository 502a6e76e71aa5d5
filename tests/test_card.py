"""The model card: it has the published form, and claims only what the file shows and what was measured."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml

from pipeline.card.card import PLATFORMS, Evidence, Measured, card_definition, card_readme
from recreate_model.network.spec import Model
from recreate_model.recipe import Calibration, Checkpoint, Optimization, Picture, Preprocess, Recipe, Target, as_json
from recreate_model.support.digest import digest_bytes
from recreate_model.support.errors import CheckError, InputError

TICK = ":heavy_check_mark:"
CROSS = ":heavy_multiplication_x:"
WEIGHTS = bytes(range(64))
ARCHIVE = "ab" * 32

HEADINGS = (
    "# MobileNet v2 1.0 224 INT8",
    "## Description",
    "## License",
    "## Related Materials",
    "### Class Labels",
    "### Model Recreation Code",
    "## Network Information",
    "## Performance",
    "### Key",
    "## Accuracy",
    "## Optimizations",
    "## Network Inputs",
    "## Network Outputs",
)
# The keys of the published definition.yaml, in its order. The one entry of a list stands for all of them.
DEFINITION: Any = {
    "benchmark": None,
    "description": None,
    "license": [None],
    "network": {
        "file_size_bytes": None,
        "filename": None,
        "framework": None,
        "hash": {"algorithm": None, "value": None},
        "provenance": None,
    },
    "network_parameters": {
        "input_nodes": [{"description": None, "example_input": {"path": None}, "name": None, "shape": [None]}],
        "output_nodes": [{"description": None, "name": None, "shape": [None], "test_output_path": None}],
    },
    "operators": {"TensorFlow Lite": [None]},
    "paper": None,
}

OFFICIAL = Recipe(
    model=Model(),
    checkpoint=Checkpoint("official", sha256="31" * 32),
    calibration=Calibration("folder", pictures=tuple(Picture(f"{n}.jpg") for n in range(100))),
    evaluation=(),
    preprocess=Preprocess(),
    targets=(),
)
LOCAL = dataclasses.replace(OFFICIAL, checkpoint=Checkpoint("archive", sha256=ARCHIVE))
SEEDED = dataclasses.replace(OFFICIAL, checkpoint=Checkpoint("seeded", seed=7))
MEASURED = Measured(value=0.9042, low=0.8614, high=0.9349, n=250, dataset="700 ImageNet pictures | one a class")


def tiny_model(
    *,
    input_name: str = "tfl.quantize",
    input_shape: Sequence[int] = (1, 224, 224, 3),
    input_type: str = "INT8",
    output_shape: Sequence[int] = (1, 1001),
    scale: float | None = 0.0078125,
    operators: Sequence[str] = ("SOFTMAX", "CONV_2D"),
    inputs: Sequence[int] = (0,),
) -> bytes:
    """A hand-made model with the input and output of MobileNetV2, and operators without meaning between them."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: Sequence[int], dtype: str, scale: float | None, zero_point: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), getattr(schema.TensorType, dtype), 0
        made.quantization = schema.QuantizationParametersT()
        if scale is not None:
            made.quantization.scale, made.quantization.zeroPoint = [scale], [zero_point]
        return made

    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors = [
        tensor(input_name, input_shape, input_type, scale, -1),
        tensor("MobilenetV2/Predictions/Reshape_11", output_shape, "INT8", 1 / 256, -128),
    ]
    graph.inputs, graph.outputs, graph.operators = list(inputs), [1], []
    model.operatorCodes, model.buffers = [], [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = list(WEIGHTS)
    for index, name in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        operator.opcodeIndex, operator.inputs, operator.outputs = index, [0], [1]
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    model.version, model.subgraphs = 3, [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def model() -> bytes:
    return tiny_model()


def readme(
    model: bytes,
    recipe: Recipe = OFFICIAL,
    accuracy: Measured | None = None,
    evidence: Sequence[Evidence] = (),
    files: Sequence[tuple[str, str]] = (),
    tools: Mapping[str, str] | None = None,
) -> str:
    return card_readme(recipe, model, accuracy, None, evidence, files, tools=tools)


def definition(
    model: bytes,
    recipe: Recipe = OFFICIAL,
    accuracy: Measured | None = None,
    files: Sequence[tuple[str, str]] = (),
) -> Any:
    return yaml.safe_load(card_definition(recipe, model, accuracy, files))


def row(card: str, first_cell: str) -> list[str]:
    """The other cells of the only table row that starts with `first_cell`. The table of evidence is ignored."""
    rest = re.sub(r"### Evidence\n(\|.*\n)*", "", card)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rest.splitlines() if line.startswith("|")]
    (cells,) = [cells[1:] for cells in rows if cells[0] == first_cell]
    return cells


def keys_of(value: Any) -> Any:
    """The keys and nesting of a YAML value, without its figures and texts."""
    if isinstance(value, dict):
        return {key: keys_of(item) for key, item in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) else None


def key_order(value: Any) -> list[str]:
    """All keys, depth first, in the order of the file."""
    if isinstance(value, dict):
        return [name for key, item in value.items() for name in (key, *key_order(item))]
    return [name for item in value for name in key_order(item)] if isinstance(value, list) else []


def test_the_card_has_the_published_headings_in_their_order(model: bytes) -> None:
    """Readers of the published card find the same headings here."""
    assert tuple(line for line in readme(model).splitlines() if line.startswith("#")) == HEADINGS


def test_the_definition_has_the_published_keys_in_their_order(model: bytes) -> None:
    """A program that reads the published definition can read this one."""
    found = definition(model)
    assert keys_of(found) == DEFINITION
    assert key_order(found) == key_order(DEFINITION)


def test_size_and_hashes_are_those_of_the_file(model: bytes) -> None:
    """Both cards state the size and the hashes of the model."""
    card, network = readme(model), definition(model)["network"]
    assert row(card, "SHA-1 Hash") == [digest_bytes(model, "sha1")]
    assert row(card, "SHA-256 Hash") == [digest_bytes(model)]
    assert row(card, "Size (Bytes)") == [str(len(model))]
    assert network["hash"] == {"algorithm": "sha1", "value": digest_bytes(model, "sha1")}
    assert (network["file_size_bytes"], network["filename"]) == (len(model), "mobilenet_v2_1.0_224_INT8.tflite")


def test_one_changed_byte_of_the_model_changes_the_card(model: bytes) -> None:
    """A card belongs to one file: a changed weight changes its hashes."""
    changed = model.replace(WEIGHTS, WEIGHTS[:-1] + b"\0")
    assert len(changed) == len(model)
    assert row(readme(changed), "SHA-1 Hash") != row(readme(model), "SHA-1 Hash")
    assert definition(changed)["network"]["hash"]["value"] != definition(model)["network"]["hash"]["value"]


def test_inputs_and_outputs_are_those_of_the_file(model: bytes) -> None:
    """Name, shape, type, scale and zero point are read from the file."""
    card = readme(model)
    for cell in ("tfl.quantize", "(1, 224, 224, 3)", "int8", "0.0078125", "-1", "0.00390625", "-128", "(1, 1001)"):
        assert f"<td>{cell}</td>" in card
    other = tiny_model(input_name="a<b", scale=0.25, output_shape=(1, 11))
    changed = readme(other)
    assert "tfl.quantize" not in changed
    for cell in ("a&lt;b", "0.25", "(1, 11)", "Per-class confidence for 11 ImageNet classes"):
        assert f"<td>{cell}</td>" in changed
    nodes = definition(other)["network_parameters"]
    assert nodes["input_nodes"][0]["name"] == "a<b"
    assert nodes["output_nodes"][0]["shape"] == [1, 11]


def test_operators_are_those_of_the_file() -> None:
    """The published list names operators that its file does not run. This card reads them from the file."""
    operators = definition(tiny_model(operators=("RESHAPE", "ADD", "ADD")))["operators"]
    assert operators == {"TensorFlow Lite": ["ADD", "RESHAPE"]}


@pytest.mark.parametrize(
    "other",
    [
        {"input_shape": (1, 192, 192, 3)},
        {"input_shape": (1, 224, 224)},
        {"input_type": "FLOAT32"},
        {"output_shape": (1001,)},
        {"scale": None},
        {"inputs": ()},
        {"inputs": (0, 0)},
    ],
    ids=str,
)
def test_a_file_that_contradicts_its_recipe_has_no_card(other: dict[str, Any]) -> None:
    """The title states the resolution and INT8, so the file has to agree."""
    for write in (readme, definition):
        with pytest.raises(CheckError, match="no card was written"):
            write(tiny_model(**other))


def test_a_file_that_is_not_a_model_has_no_card() -> None:
    """A Git LFS pointer with the name of the model is refused."""
    with pytest.raises(InputError, match="LFS"):
        readme(b"version https://git-lfs.github.com/spec/v1\n")


def test_the_official_build_needs_no_warning(model: bytes) -> None:
    """For the official checkpoint, title and description are those of the published card."""
    card = readme(model)
    assert card.splitlines()[0] == "# MobileNet v2 1.0 224 INT8"
    assert "INT8 quantised version of MobileNet v2 model. Trained on ImageNet.\n" in card
    assert definition(model)["description"] == "INT8 quantised version of MobileNet v2 model. Trained on ImageNet."


def test_a_seeded_build_starts_with_a_warning(model: bytes) -> None:
    """The first line of both cards prevents a reader from taking seeded weights for the trained model."""
    card, twin = readme(model, SEEDED), definition(model, SEEDED)
    warning = "Seeded stand-in: weights drawn from seed 7, not the trained model."
    assert card.splitlines()[0] == f"> **{warning}**"
    assert twin["description"].startswith(warning)
    assert "seeded" in twin["network"]["filename"]


def test_a_seeded_build_claims_nothing_of_the_trained_model(model: bytes) -> None:
    """Without measurements there is no accuracy and no tick, and the text does not mention training."""
    for text in (readme(model, SEEDED), card_definition(SEEDED, model, None, ())):
        assert "0.697" not in text
        assert TICK not in text
        assert "Trained on ImageNet" not in text


def test_a_build_from_a_local_archive_starts_with_a_warning(model: bytes) -> None:
    """An archive other than the official one is named by its digest."""
    warning = f"Built from an archive with SHA-256 {ARCHIVE}, not from the official one."
    card, twin = readme(model, LOCAL), definition(model, LOCAL)
    assert card.splitlines()[0] == f"> **{warning}**"
    assert twin["description"].startswith(warning)
    assert "Trained on ImageNet" not in card + twin["description"]


def test_accuracy_has_an_interval_a_sample_size_and_a_data_set(model: bytes) -> None:
    """A figure has no meaning without them."""
    card = readme(model, accuracy=MEASURED)
    assert row(card, "Top 1 Accuracy") == ["0.904", "0.861 to 0.935", "250"]
    assert "Dataset: 700 ImageNet pictures" in card
    assert definition(model, accuracy=MEASURED)["benchmark"] == {
        MEASURED.dataset: {"top-1-accuracy": 0.904, "top-1-interval-95": [0.861, 0.935], "pictures": 250}
    }


def test_accuracy_without_a_measurement_is_not_measured(model: bytes) -> None:
    """The published figure is that of the published file, so it is not used, even for the official checkpoint."""
    card = readme(model)
    assert row(card, "Top 1 Accuracy") == ["not measured", "", ""]
    assert row(card, "Agreement with the float model") == ["not measured", "", ""]
    assert "Dataset: not measured\n" in card
    assert "0.697" not in card
    assert definition(model)["benchmark"] is None


def test_the_data_set_is_never_assumed(model: bytes) -> None:
    """A card names ILSVRC 2012 only if the measurement does."""
    assert "ILSVRC" not in readme(model, accuracy=MEASURED) + card_definition(OFFICIAL, model, MEASURED, ())
    named = dataclasses.replace(MEASURED, dataset="ILSVRC 2012")
    assert "Dataset: ILSVRC 2012\n" in readme(model, accuracy=named)
    assert list(definition(model, accuracy=named)["benchmark"]) == ["ILSVRC 2012"]


def test_agreement_is_shown_as_measured(model: bytes) -> None:
    """Agreement has its interval, sample size and data set. Top-1 accuracy, which was not measured, is beside it."""
    card = card_readme(OFFICIAL, model, None, Measured(0.98, 0.954, 0.991, 250, "odd | name"), (), ())
    assert "| Top 1 Accuracy | not measured | | |" in card
    assert "| Agreement with the float model | 0.980 | 0.954 to 0.991 | 250 |" in card
    assert r"Dataset: odd \| name" in card


def test_compiled_variants_have_a_table(model: bytes) -> None:
    """A target and its variant optimized for size each have a row of estimates. Without variants there is no table."""
    target = Target("ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram")
    row = {
        "target": as_json(target),
        "sram_kib": 999.0,
        "sram_needed_kib": 1474.2,
        "dram_kib": 0.0,
        "flash_kib": 999.0,
        "flash_needed_kib": 3360.0,
        "inferences_per_second": 65.31,
    }
    small = {**row, "target": as_json(dataclasses.replace(target, optimize=Optimization.SIZE))}
    card = card_readme(OFFICIAL, model, None, None, (), (), variants=[row, small])
    assert "| ethos-u55-128 | Shared_Sram | 1,474 | 0 | 3,360 | 65.3 |" in card
    assert "| ethos-u55-128_size | Shared_Sram | 1,474 | 0 | 3,360 | 65.3 |" in card
    assert "Ethos U, as Vela" not in readme(model)


@pytest.mark.parametrize(
    ("status", "mark"),
    [("ran", TICK), ("compiled", TICK), ("analyzed", "analyzed"), ("not run", "not measured")],
)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_only_what_ran_or_was_compiled_has_a_tick(model: bytes, platform: str, status: str, mark: str) -> None:
    """Evidence for one platform gives that platform its mark, and no mark to the other three."""
    card = readme(model, evidence=[Evidence(platform, status, "some work")])
    assert row(card, platform) == [mark, f"{status}: some work"]
    for other in set(PLATFORMS) - {platform}:
        assert row(card, other) == ["not measured", ""]
    # A tick may appear only in the table and in its key.
    assert card.count(TICK) == (2 if mark == TICK else 0)


def test_all_published_platforms_are_listed_even_without_evidence(model: bytes) -> None:
    """They have neither tick nor cross, and the key says what that means."""
    card = readme(model)
    assert [row(card, platform) for platform in PLATFORMS] == [["not measured", ""]] * 4
    assert "* not measured - Neither run nor compiled" in card
    assert TICK not in card
    assert CROSS not in card


def test_the_strongest_evidence_decides_the_mark(model: bytes) -> None:
    """Several Ethos-U configurations share a row. One is enough for a tick, and all are listed."""
    evidence = [Evidence("Ethos U", "analyzed", "U65"), Evidence("Ethos U", "compiled", "U55 | 128\nMACs")]
    line = rf"| Ethos U | {TICK} | compiled: U55 \| 128 MACs<br>analyzed: U65 |"
    assert line in readme(model, evidence=evidence).splitlines()


@pytest.mark.parametrize(("platform", "status"), [("Ethos-U", "ran"), ("Ethos U", "passed")])
def test_evidence_for_an_unknown_platform_or_status_is_refused(platform: str, status: str) -> None:
    """The card would not show such evidence, so creating it is an error."""
    with pytest.raises(ValueError, match="no such platform or status"):
        Evidence(platform, status, "some work")


def test_test_vectors_are_named_only_if_they_exist(model: bytes) -> None:
    """Files below the published folders become the paths in the definition."""
    inputs, outputs = "testing_input/tfl.quantize", "testing_output/MobilenetV2/Predictions/Reshape_11"
    nodes = definition(model, files=[(f"{inputs}/0.npy", "0" * 64)])["network_parameters"]
    assert nodes["input_nodes"][0]["example_input"]["path"] == inputs
    assert nodes["output_nodes"][0]["test_output_path"] is None
    nodes = definition(model, files=[(f"{outputs}/0.npy", "0" * 64)])["network_parameters"]
    assert nodes["input_nodes"][0]["example_input"]["path"] is None
    assert nodes["output_nodes"][0]["test_output_path"] == outputs


def test_files_are_listed_with_their_digests(model: bytes) -> None:
    """Every given file has a link and a digest, after the sections of the published card."""
    card = readme(model, files=[("labels.txt", "5" * 64)])
    assert row(card, "[labels.txt](labels.txt)") == [f"`{'5' * 64}`"]
    assert card.index("## Network Outputs") < card.index("## Files")


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (OFFICIAL.calibration, "measured on 100 pictures, rounded to 10 mantissa bits."),
        (Calibration("procedural", (Picture("0"), Picture("1")), 8), "measured on 2 procedural pictures, rounded to 8"),
        (Calibration("ranges", ranges_sha256="cd" * 32), f"from the table with SHA-256 `{'cd' * 32}`."),
        (
            Calibration("folder", (Picture("0"),), range_method="percentile:99.9"),
            "measured on 1 pictures, rounded to 10 mantissa bits, outliers cut off by the method percentile:99.9.",
        ),
        (
            Calibration("ranges", ranges_sha256="cd" * 32, range_method="mse"),
            f"from the table with SHA-256 `{'cd' * 32}`, outliers cut off by the method mse.",
        ),
        (
            Calibration("ranges", ranges_sha256="cd" * 32, range_method=""),
            f"from the table with SHA-256 `{'cd' * 32}`.",
        ),
    ],
)
def test_the_description_says_where_weights_and_ranges_come_from(
    model: bytes, calibration: Calibration, words: str
) -> None:
    """The origin of weights and ranges, and the id, are those of the recipe."""
    recipe = dataclasses.replace(OFFICIAL, calibration=calibration)
    card = readme(model, recipe)
    assert f"Activation ranges {words}" in card
    assert f"Float weights from the archive with SHA-256 `{'31' * 32}`" in card
    assert f"Recipe `{recipe.id}`." in card


def test_tools_are_sorted(model: bytes) -> None:
    """The order in which a caller names the tools does not change the card."""
    card = readme(model, tools={"tensorflow": "2.21.0", "numpy": "2.2"})
    assert "Made with numpy 2.2, tensorflow 2.21.0." in card
    assert card == readme(model, tools={"numpy": "2.2", "tensorflow": "2.21.0"})
    assert "Made with" not in readme(model)


def test_every_row_of_a_table_has_as_many_cells_as_its_header(model: bytes) -> None:
    """Markdown does not show a table with uneven rows correctly."""
    evidence = [Evidence("Cortex-A", "ran", "a | b")]
    for accuracy in (None, MEASURED):
        card = readme(model, LOCAL, accuracy, evidence, files=[("a|b", "0" * 64)])
        for table in (block.splitlines() for block in card.split("\n\n") if "|--" in block):
            lines = [line.replace(r"\|", "") for line in table if line.startswith("|")]
            assert len({line.count("|") for line in lines}) == 1, lines


def test_another_member_of_the_family_has_its_own_title_and_input() -> None:
    """Width and resolution come from the recipe, and the file agrees with them."""
    recipe = dataclasses.replace(OFFICIAL, model=Model("0.35", 96))
    other = tiny_model(input_shape=(1, 96, 96, 3))
    card = readme(other, recipe)
    assert card.splitlines()[0] == "# MobileNet v2 0.35 96 INT8"
    assert "Single 96x96 RGB image" in card
    assert definition(other, recipe)["network"]["filename"] == "mobilenet_v2_0.35_96_INT8.tflite"
