"""Command `completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

SUMMARY = "print a script that completes the installed command in a shell"
EXAMPLE = "completion bash > ~/.local/share/bash-completion/completions/recreate-model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), metavar="SHELL", help="bash, zsh or tcsh")


def run(arguments: argparse.Namespace) -> int:
    import shtab

    from pipeline.console import INSTALLED_PROGRAM

    top: argparse.ArgumentParser = arguments.program
    top.prog = INSTALLED_PROGRAM  # shells complete by the name of a program
    for action in top._actions:
        if action.dest == "command":
            action.help = ""  # help lists the commands by itself, and what help does not list is not completed either
    print(shtab.complete(top, shell=arguments.shell))
    return 0
