"""docs/cli.md, written from the parser and from the declarations of the options: `make reference`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pipeline.interface.arguments import LISTED, MODULES, SUMMARIES, VARIANTS, parsers
from pipeline.request.request import GROUPS, OPTIONS, Group, default_text, flags

_INTRODUCTION = """# The command line

A command line is the program, a command and its options: `python -m pipeline quantize --calib 500`, or
`recreate-model quantize --calib 500` for an installed copy. `--help` behind a command shows the options that concern
it, with an example. This page is written by `make reference`.
"""
_BUILD = """## Options of a build

Every command on a build accepts all of these. A path that is given is used or refused, never replaced by something
else. A build keeps its options: `--of`, or `--checkpoint`, `--model` and `--recipe`, say which build a command is
about, and a command that makes no model refuses an option that contradicts the build. [builds.md](builds.md) has a
table of what each command may write.
"""
_OUTPUT = """## Output

`--json` prints JSON instead of tables, and `--quiet` nothing but warnings and errors; both may stand before the command
or behind it. Tables in a pipe or a file are tab-separated. Warnings and errors go to standard error, as does progress
if that is a terminal; with `--json` each warning and error is a JSON object on a line of its own.

An error is one line: what was expected, what was found, what was done about it, and what to type next.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | a check failed: something that was claimed does not hold, or two files differ |
| 2 | invalid usage |
| 3 | bad input: a file that was given or fetched cannot be used |
| 4 | a resource is not available: no network, no permission, no space |
| 5 | a tool failed, or there is a defect in this program |
| 130, 141, 143 | stopped by Ctrl-C, by a closed pipe, by SIGTERM; finished stages are kept |

## Environment

| variable | meaning |
|---|---|
| `IMAGENET_DIR` | the pictures that `--images auto` means: a path, or a data set as `tfds:NAME` |
| `RECREATE_MODEL_CACHE` | folder for downloads, instead of the user's cache folder |
| `RECREATE_MODEL_MIRRORS` | base addresses, divided by spaces, that are tried before the usual ones |
| `RECREATE_MODEL_TRACEBACK` | `1` prints the traceback of a defect in this program |

## Other spellings

`quantise` is `quantize`, `--optimise` is `--optimize`, and `--moves` is `--corrections`.
"""


def markdown() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_commands(), _BUILD, *_build_options(), *_own_options(), _OUTPUT])


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    yield "| command | what it does |\n|---|---|"
    for title, names in LISTED:
        yield f"| *{title}* | |"
        yield from (f"| `{name}` | {SUMMARIES[name]} |" for name in names)
    yield ""


def _build_options() -> Iterator[str]:
    for group in GROUPS:
        yield f"### {group.title[0].upper()}{group.title[1:]}\n"
        if group.commands:
            names = ", ".join(f"`{name}`" for name in group.commands)
            yield f"Listed by the help of `all`, {names}.\n"
        yield "| option | meaning | default |\n|---|---|---|"
        yield from _rows(group)
        yield ""


def _rows(group: Group) -> Iterator[str]:
    for name, option in OPTIONS.items():
        if option.group is group:
            takes = option.metavar or "|".join(map(str, option.choices))
            # A bar divides cells unless it is escaped.
            spelled = f"{flags(name)[0]} {takes}".replace("|", "\\|")
            yield f"| `{spelled}` | {option.help} | {default_text(name)} |"


def _own_options() -> Iterator[str]:
    yield "## Options of single commands\n"
    _, made = parsers()
    build = {flag for name in OPTIONS for flag in flags(name)}
    for name, parser in made.items():
        variants = VARIANTS.get(name, ())
        if name not in MODULES and not variants and name != "explain":
            continue
        own = [action for action in parser._actions if _is_own(action, build, {row.FLAG for row in variants})]
        if own:
            yield f"### `{name}`\n"
            yield "| argument | meaning |\n|---|---|"
            for action in own:
                spelled = " ".join(filter(None, (next(iter(action.option_strings), ""), _takes(action))))
                meaning = str(action.help).replace("|", "\\|")
                yield f"| `{spelled}` | {meaning} |"
            yield ""


def _is_own(action: argparse.Action, build: set[str], variants: set[str]) -> bool:
    shared = {"-h", "--helpfull", "--json", "--quiet", "--force"}
    if action.dest in variants:
        return True
    return action.help != argparse.SUPPRESS and not shared.union(build).intersection(action.option_strings)


def _takes(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar:
        return str(action.metavar)
    choices = "|".join(map(str, action.choices or ()))
    return (choices or str(action.dest)).replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
