"""The plot and the table of all Ethos-U variants: complete, without overlaps, and always the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ethos_u import plot as vela_plot
from pipeline.ethos_u.plot import Point, place, plot
from pipeline.ethos_u.report import markdown
from pipeline.ethos_u.targets import parse_targets, variant_name
from pipeline.ethos_u.variant import Variant
from pipeline.ethos_u.vela import compile_all
from pipeline.request.request import Request
from tests.conftest import build, contents
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> tuple[Variant, ...]:
    """Every accelerator, for speed and for size."""
    return compile_all(tiny_model("int8"), "tiny", parse_targets("all", "both"), tmp_path_factory.mktemp("variants"))


def test_the_plot_is_valid_svg(variants: tuple[Variant, ...]) -> None:
    """It is well-formed XML without a date or the name of this machine."""
    text = plot("tiny", variants)
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "date" not in text
    assert os.uname().nodename not in text


def test_every_variant_has_a_mark_and_a_label(variants: tuple[Variant, ...]) -> None:
    """The label names the accelerator, and marks variants that are optimized for size."""
    with vela_plot._matplotlib():
        (axes,) = vela_plot.figure("tiny", variants).axes
        texts = [text.get_text() for text in axes.texts]
        marks = [line for line in axes.lines if line.get_marker() != "None"]
    assert sorted(texts) == sorted(vela_plot._label(variant) for variant in variants)
    assert {"U55-128", "U55-128 size"} <= set(texts)
    assert len(marks) == len(variants)


def test_labels_do_not_overlap(variants: tuple[Variant, ...]) -> None:
    """Not even where many variants use nearly the same SRAM. The boxes are those of the drawn text."""
    crowded = [
        replace(variant, sram_needed_kib=300.0 + 4 * number, inferences_per_second=100.0 + number % 5)
        for number, variant in enumerate(variants)
    ]
    for some in (variants, crowded, variants[:1]):
        with vela_plot._matplotlib():
            drawn = vela_plot.figure("tiny", some)
            (axes,) = drawn.axes
            drawn.draw_without_rendering()
            boxes = [text.get_window_extent() for text in axes.texts]
            whole = drawn.bbox
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1 for box in boxes)


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300)), min_size=1, max_size=30))
def test_labels_keep_their_distance_and_their_order(places: list[tuple[float, float]]) -> None:
    """In each column, labels have the order of their points, and all of them are within the axes."""
    points = [Point(x, y, str(number)) for number, (x, y) in enumerate(places)]
    labels = place(points, 300.0)
    assert sorted(label.point.text for label in labels) == sorted(point.text for point in points)
    for lower, upper in pairwise(labels):
        if lower.x == upper.x:
            assert upper.y - lower.y >= vela_plot._GAP - 1e-6
            assert upper.point.y >= lower.point.y
    assert all(0 <= label.y <= 300 for label in labels)
    assert all(label.x > label.point.x for label in labels)


def test_labels_that_do_not_overlap_stay_beside_their_points() -> None:
    """They are not moved."""
    labels = place([Point(0, 20, "low"), Point(0, 100, "high")], 300.0)
    assert [label.y for label in labels] == [20, 100]


def test_the_users_settings_of_matplotlib_do_not_matter(tmp_path: Path, variants: tuple[Variant, ...]) -> None:
    """A matplotlibrc in the working folder, an unknown backend, no home, another locale and hash seed."""
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\nnonsense: 1\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.ethos_u.vela import compile_all; from pipeline.ethos_u.plot import plot\n"
        "from pipeline.ethos_u.targets import parse_targets\n"
        "model = Path('model').read_bytes()\n"
        "sys.stdout.write(plot('tiny', compile_all(model, 'tiny', parse_targets('all', 'both'), Path('out'))))\n"
    )
    (tmp_path / "model").write_bytes(tiny_model("int8"))
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "DISPLAY")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "99", "LC_ALL": "C", "PYTHONUTF8": "0"}
    environment |= {"MPLBACKEND": "nonsense", "HOME": "/nonexistent", "OMP_NUM_THREADS": "3"}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""
    assert finished.stdout == plot("tiny", variants)


def test_the_environment_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, variants: tuple[Variant, ...]) -> None:
    """Variables that are set for matplotlib are restored."""
    monkeypatch.setenv("MPLCONFIGDIR", "/mine")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    plot("tiny", variants)
    assert os.environ["MPLCONFIGDIR"] == "/mine"
    assert "MPLBACKEND" not in os.environ


def test_the_table_has_a_row_for_each_variant(variants: tuple[Variant, ...]) -> None:
    """Each row links to the folder of its variant and has its figures."""
    text = markdown("tiny", variants, "variants.svg")
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(variants)
    for row, variant in zip(rows, variants, strict=True):
        assert f"[{variant_name(variant.target)}]({variant_name(variant.target)}/)" in row
        assert f"| {variant.inferences_per_second:,.1f} |" in row
        assert f"| {variant.sram_needed_kib:,.0f} |" in row


def test_a_build_has_both_variants_beside_each_other(small_build: Request) -> None:
    """With both, each folder has its four files; after a build for speed alone, those for size are removed."""
    (folder,) = small_build.out.iterdir()
    before = contents(folder)
    build(replace(small_build, optimize="both"))
    names = sorted(path.relative_to(folder / "ethos_u").as_posix() for path in (folder / "ethos_u").rglob("*.*"))
    stem = f"{folder.name}_vela.tflite"
    for name in ("ethos-u55-128", "ethos-u55-128_size"):
        assert [each for each in names if each.startswith(f"{name}/")] == [
            f"{name}/{file}" for file in ("config.json", stem, "per_layer.csv", "summary.csv")
        ]
    files = [(folder / "ethos_u" / name / stem).read_bytes() for name in ("ethos-u55-128", "ethos-u55-128_size")]
    assert files[0] != files[1]
    assert "ethos-u55-128_size" in (folder / "ethos_u" / "variants.md").read_text()
    build(small_build)
    assert contents(folder) == before
