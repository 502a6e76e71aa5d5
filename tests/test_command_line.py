"""The command line: help, suggestions, spellings, JSON, and the page of the docs that is generated from it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engine.stages import MAKING, STAGES
from pipeline.interface import reference
from pipeline.interface.arguments import LISTED, SUMMARIES, parse, parsers
from pipeline.request.request import BUILD, GROUPS, OPTIONS, RUNNING, Request, flag, flags
from recreate_model.support.errors import UsageError
from tests.test_bad_input import ROOT, assert_one_error, run, small

COMMANDS = sorted(SUMMARIES)


def help_of(command: str) -> str:
    _, made = parsers()
    return made[command].format_help()


def test_the_reference_in_the_docs_is_up_to_date() -> None:
    """docs/cli.md is what `make reference` generates."""
    assert (ROOT / "docs" / "cli.md").read_text() == reference.markdown()


def test_every_command_is_listed_once() -> None:
    """The help and the docs list it under one heading."""
    listed = [name for _, names in LISTED for name in names]
    assert sorted(listed) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_eighty_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the example command may be longer."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line for line in help_of(command).splitlines() if not line.startswith("example: ")]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_the_help_is_valid(command: str) -> None:
    """The parser accepts it, and it runs this command."""
    (example,) = re.findall(r"^example: python -m pipeline (.*)$", help_of(command), re.M)
    words = shlex.split(example.split(" > ")[0])
    assert parse(["pipeline", *words]).command == command


def test_help_lists_the_options_that_concern_the_command() -> None:
    """`labels` needs neither pictures nor Ethos-U targets, but accepts the options of its build."""
    assert "--calib" in help_of("quantize")
    assert "--calib" in help_of("all")
    assert "--calib" not in help_of("labels")
    assert "--targets" in help_of("vela")
    assert "--targets" not in help_of("quantize")
    assert parse(["pipeline", "labels", "--calib", "7"]).calib == 7


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_declared_once(name: str) -> None:
    """The help of `all` and the reference list it, and the parser leaves its default to `Request`."""
    text = " ".join(help_of("all").split())
    assert flags(name)[0] in text
    assert flags(name)[0] in reference.markdown()
    assert getattr(parse(["pipeline", "all"]), name) is None
    assert hasattr(Request(), name)
    assert OPTIONS[name].group in GROUPS


def test_the_groups_of_every_command_are_the_first_and_the_last() -> None:
    """A new group then comes between the options of what to build and those of how to run."""
    assert (GROUPS[0], GROUPS[-1]) == (BUILD, RUNNING)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evalute", "did you mean evaluate?"),
        ("quantize --calbi 4", "did you mean --calib?"),
        ("vela --optimize sped", "did you mean speed?"),
        ("explain quantis", "did you mean quantize?"),
        ("diff a.tflite", "found no B"),
        ("quantize --label-base 3", "--label-base to be one of 0, 1; found 3"),
    ],
)
def test_the_error_for_a_mistyped_word_suggests_the_right_one(words: str, message: str) -> None:
    """Invalid values and missing arguments are named, too."""
    with pytest.raises(UsageError) as raised:
        parse(["pipeline", *words.split()])
    assert message in str(raised.value)
    assert "done: nothing was run" in str(raised.value)


def test_british_spellings_of_commands_and_options_are_accepted() -> None:
    """They are aliases of the American ones."""
    assert parse(["pipeline", "quantise"]).command == "quantize"
    assert parse(["pipeline", "--json", "quantise"]).command == "quantize"
    assert parse(["pipeline", "explain", "quantise"]).stage == "quantize"
    assert parse(["pipeline", "vela", "--optimise", "size"]).optimize == "size"


@pytest.mark.parametrize("words", ["--json status", "status --json", "--quiet status --json", "--json --quiet status"])
def test_output_options_may_be_before_or_after_the_command(words: str) -> None:
    """An option before the command stays set if it is absent after it."""
    assert parse(["pipeline", *words.split()]).json
    assert parse(["pipeline", *words.split()]).quiet == ("--quiet" in words)


@pytest.mark.parametrize("flags", [{"calib": 0}, {"targets": "ethos-u56"}, {"nonsense": 1}], ids=str)
def test_an_error_is_json_with_the_option_json(flags: dict[str, object], tmp_path: Path) -> None:
    """Standard error has one object with the four parts and the status. Standard output is empty."""
    arguments = small("vela", tmp_path, **flags)
    plain, found = run(*arguments), run("--json", *arguments)
    assert_one_error(plain, 2)
    assert (found.returncode, found.stdout) == (2, "")
    error = json.loads(found.stderr)["error"]
    assert error["status"] == 2
    parts = "; ".join(f"{name} {error[name]}" for name in ("expected", "found"))
    assert plain.stderr.strip() == f"error: {parts}; done: {error['done']}; next: {error['next']}"


def test_warnings_are_json_with_the_option_json(tmp_path: Path) -> None:
    """A script can then parse standard error line by line."""
    result = run("--json", *small("status", tmp_path, checkpoint="auto"))
    (line,) = result.stderr.splitlines()
    assert "SEEDED" in json.loads(line)["warning"]
    assert json.loads(result.stdout)


def test_the_version_is_that_of_the_project() -> None:
    """pyproject.toml declares it."""
    (version,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert run("--version").stdout == f"recreate-model {version}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "completed"), [("recreate-model quan", "quantize"), ("recreate-model vela --targ", "--targets")]
)
def test_a_shell_completes_commands_and_options(typed: str, completed: str, tmp_path: Path) -> None:
    """A real bash loads the script that `completion bash` prints."""
    script = tmp_path / "completion.sh"
    script.write_text(run("completion", "bash").stdout)
    words = typed.split()
    program = f"""
source {script}
COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE="{typed}"; COMP_POINT={len(typed)}
function_name=$(complete -p recreate-model | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function_name recreate-model "{words[-1]}" "{words[-2]}"
echo "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert completed in result.stdout.split()


def test_help_imports_nothing_heavy() -> None:
    """Importing numpy alone would take longer than everything else that the help does."""
    code = (
        "import sys; from pipeline.interface.arguments import parsers; parsers(); "
        "print(sorted(set(sys.modules) & {'numpy', 'tensorflow', 'rich', 'shtab', 'requests', 'PIL'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_page_on_builds_is_complete() -> None:
    """docs/builds.md lists the commands that take `--of`, the kept options, and what each command may write."""
    page = (ROOT / "docs" / "builds.md").read_text()
    sections = {part.splitlines()[0]: part for part in page.split("\n## ")}
    given = sections["Starting from an INT8 file"].split("works on a build:")[1].split("\n\n")[0]
    stages = {stage.name for stage in STAGES} - set(MAKING)
    assert set(re.findall(r"`([a-z-]+)`", given)) == {"all", "firmware", "status", "explain", *stages}
    kept = sections["Options that a build keeps"].split("These are the defaults")[0]
    assert set(re.findall(r"`(--[a-z-]+)`", kept)) == {flag(name) for name, option in OPTIONS.items() if option.kept}
    rows = [row.split("|")[1] for row in sections["What each command may write"].splitlines() if row.startswith("| `")]
    written = {word.split()[0] for word in re.findall(r"`([^`]+)`", "".join(rows))}
    assert written == set(COMMANDS) - {"aarch64", "completion"}
