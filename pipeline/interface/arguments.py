"""The parser: every command with its options, and what is said of a command line that it cannot read.

The options of a build are declared in `pipeline.request.request`, the stages in `pipeline.engine.stages`, and every
other command in a module of `pipeline.interface.commands`. Nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from absl.flags import argparse_flags

from pipeline.console import INSTALLED_PROGRAM, PROGRAM
from pipeline.engine.stages import MAKING, STAGES
from pipeline.interface.commands import (
    Command,
    Variant,
    aarch64,
    attest_check,
    check,
    completion,
    diff,
    firmware,
    prove,
    published,
    recover,
    vela_c_array,
    vela_fit,
)
from pipeline.request.request import (
    GROUPS,
    OPTIONS,
    RUNNING,
    VALUE_TYPES,
    Group,
    default_text,
    flags,
    meant,
    mutually_exclusive,
)
from recreate_model.network.spec import MOBILENET_V2
from recreate_model.support.errors import UsageError

_EXIT_STATUS = (
    "exit status: 0 done, 1 a check failed, 2 invalid usage, 3 bad input, "
    "4 a resource is not available, 5 a tool failed"
)
_RUNS_STAGES = ("all", *(stage.name for stage in STAGES))  # commands that make files
_FEW = 8  # choices that an error lists itself
_FORCE = "run the named stage, or with `all` every stage, even if it is up to date or other options made the build"

# Commands that are no stage. Those of the first table work on a build, so they take its options too.
BUILD_COMMANDS: dict[str, Command] = {"firmware": firmware}
COMMANDS: dict[str, Command] = {
    "diff": diff,
    "recover": recover,
    "prove": prove,
    "check": check,
    "aarch64": aarch64,
    "completion": completion,
}
MODULES = {**BUILD_COMMANDS, **COMMANDS}
# Options with which a stage's command does something else than run the stage.
VARIANTS: dict[str, tuple[Variant, ...]] = {
    "attest": (attest_check,),
    "verify": (published,),
    "vela": (vela_fit, vela_c_array),
}
# Other spellings of commands.
_SPELLINGS = {"quantise": "quantize", "help": "--help"}

_ALL, _STATUS, _EXPLAIN = "all", "status", "explain"
SUMMARIES = {
    _ALL: "run every stage but `platforms`, in order",
    **{stage.name: stage.summary for stage in STAGES},
    _STATUS: "which stages are up to date",
    _EXPLAIN: "why a stage would run again",
    **{name: module.SUMMARY for name, module in MODULES.items()},
}
LISTED = (
    ("the whole pipeline", (_ALL, _STATUS, _EXPLAIN, "check")),
    ("make the INT8 model", MAKING),
    ("check it", ("verify", "evaluate", "platforms", "firmware")),
    ("deploy it", ("vela", "labels", "c-array", "cortex-m", "standalone", "linux", "card", "attest")),
    ("compare and prove files", tuple(COMMANDS)[:3]),
    ("set up", ("aarch64", "completion")),
)


class _Parser(argparse_flags.ArgumentParser):
    """Reports an invalid command line in one line, as every other error is; argparse would print the usage above it."""

    def error(self, message: str) -> NoReturn:
        message = " ".join(message.split())
        expected, near = f"a command line as `{self.prog} --help` shows it", ""
        if wrong := re.fullmatch(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            choices = tuple(choice.strip(" '") for choice in wrong[3].split(","))
            near = meant(wrong[2], choices)
            listed = f"one that `{self.prog} --help` lists" if len(choices) > _FEW else f"one of {', '.join(choices)}"
            expected = f"{wrong[1]} to be {listed}"
            message = wrong[2]
        message = message.replace("the following arguments are required:", "no")
        message = re.sub(
            r"^argument (\S+): invalid int value: (.*)$", r"\2 for \1, which is not a whole number", message
        )
        raise UsageError(
            expected=expected,
            found=message,
            done="nothing was run",
            next_step=" ".join(filter(None, (near, f"{self.prog} --help"))),
        )


class _Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, *arguments: Any, **more: Any) -> NoReturn:
        from pipeline.interface.version import version

        print(f"{INSTALLED_PROGRAM} {version()}")
        sys.exit(0)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace.

    Args:
        argv: the program's own name and what was typed behind it.

    Raises:
        UsageError: it is not one that the program understands.
        SystemExit: after `--help` or `--version`.
    """
    top, commands = parsers()
    words = list(argv[1:])
    first = next((index for index, word in enumerate(words) if not word.startswith("-")), None)
    if first is not None:
        words[first] = _spelled(words[first])
    arguments, unknown = top.parse_known_args(words)
    if unknown:
        parser = commands[arguments.command]
        known = tuple(flag for action in parser._actions for flag in action.option_strings)
        near = meant(unknown[0].split("=")[0], known)
        raise UsageError(
            expected=f"options of `{arguments.command}`",
            found=" ".join(unknown),
            done="nothing was run",
            next_step=" ".join(filter(None, (near, f"{parser.prog} --help"))),
        )
    return arguments


def _spelled(name: str) -> str:
    """A command's name in the spelling that the program uses."""
    return _SPELLINGS.get(name, name)


@functools.cache
def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the program, and that of each command by its name."""
    top = _Parser(  # type: ignore[no-untyped-call]  # absl ships no types here
        prog=PROGRAM,
        usage="%(prog)s [--json | --quiet] COMMAND [options]",
        description=textwrap.fill(
            f"{MOBILENET_V2.title} from float checkpoint to INT8 model and deployables, the same bytes every time.", 78
        ),
        epilog=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(program=top)  # for `completion`
    _add_output_arguments(top, default=False)
    top.add_argument("--version", nargs=0, action=_Version, help="print the version and exit")
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    made: dict[str, argparse.ArgumentParser] = {
        name: subparsers.add_parser(name, **_description(name)) for name in SUMMARIES
    }
    for name, parser in made.items():
        module = MODULES.get(name)
        if name == _EXPLAIN:
            names = tuple(stage.name for stage in STAGES)
            parser.add_argument("stage", type=_spelled, choices=names, metavar="STAGE", help=", ".join(names))
        if module:
            module.add_arguments(parser)
        if name not in COMMANDS:
            variants = VARIANTS.get(name, ())
            for variant in variants:
                variant.add_arguments(parser)
            if name in _RUNS_STAGES:
                parser.add_argument("--files", action="store_true", help="list all files, with size and SHA-1")
            _add_build_arguments(parser, name, without={variant.REPLACES for variant in variants})
        _add_output_arguments(parser, default=argparse.SUPPRESS)
        arguments = [str(action.metavar or action.dest) for action in parser._actions if not action.option_strings]
        parser.usage = " ".join(["%(prog)s", *arguments, "[options]"])
    return top, made


def _description(name: str) -> dict[str, Any]:
    example = next((stage.example for stage in STAGES if stage.name == name), "")
    if module := MODULES.get(name):
        example = module.EXAMPLE
    examples = {_ALL: "all --checkpoint official --images /data/val", _STATUS: "status", _EXPLAIN: "explain quantize"}
    lines = [f"example: {PROGRAM} {example or examples.get(name, name)}", textwrap.fill(_EXIT_STATUS, 78)]
    if name != _ALL and name not in COMMANDS:
        lines.insert(0, "Every option of `all` is accepted; listed are those that concern this command.")
    return {
        "prog": f"{PROGRAM} {name}",
        "help": SUMMARIES[name],
        "description": textwrap.fill(SUMMARIES[name], 78),
        "epilog": "\n\n".join(lines),
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _listed() -> str:
    """All commands by what they are for, and how the program ends."""
    lines = []
    for title, names in LISTED:
        lines.append(f"{title}:")
        for name in names:
            summary = textwrap.wrap(SUMMARIES[name], 78 - 14)
            lines += [f"  {name:<12}{summary[0]}", *(" " * 14 + line for line in summary[1:])]
        lines.append("")
    lines.append(f"example: {PROGRAM} quantize --calib 500")
    return "\n".join([*lines, "", textwrap.fill(_EXIT_STATUS, 78)])


def _add_output_arguments(parser: argparse.ArgumentParser, default: Any) -> None:
    """They may stand before the command or behind it."""
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", default=default, help="print JSON instead of tables, and errors as JSON"
    )
    output.add_argument(
        "--quiet", action="store_true", default=default, help="print warnings and errors and nothing else"
    )


def _add_build_arguments(parser: argparse.ArgumentParser, command: str, without: set[str]) -> None:
    """The options of a build. Those that do not concern the command are accepted, and not listed.

    Args:
        without: names of options that mean something else with this command.
    """
    # What concerns the command alone comes first.
    for group in sorted(GROUPS, key=lambda group: command not in group.commands):
        section = parser.add_argument_group(group.title)
        if group is RUNNING:
            section.add_argument("--force", action="store_true", help=_FORCE)
        for names in mutually_exclusive(group):
            place = section.add_mutually_exclusive_group() if len(names) > 1 else section
            for name in names:
                if name not in without:
                    _add_option(place, name, listed=is_listed(group, command))


def is_listed(group: Group, command: str) -> bool:
    """Whether the help of a command lists the options of a group."""
    return not group.commands or command == _ALL or command in group.commands


def _add_option(place: Any, name: str, listed: bool) -> None:
    option = OPTIONS[name]
    default = default_text(name)
    text = f"{option.help} (default: {default})" if default else option.help
    settings: dict[str, Any] = {"choices": option.choices} if option.choices else {"metavar": option.metavar}
    place.add_argument(
        *flags(name),
        dest=name,
        type=VALUE_TYPES[name],
        default=None,
        help=text if listed else argparse.SUPPRESS,
        **settings,
    )
