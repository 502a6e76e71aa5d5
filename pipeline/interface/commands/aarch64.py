"""Command `aarch64`: sets up in the cache what runs the model as AArch64 code. `make aarch64` calls it."""

from __future__ import annotations

import argparse

from pipeline.interface.commands import announcer, answer

SUMMARY = "install an AArch64 environment for qemu-aarch64 in the cache, without changing the system"
EXAMPLE = "aarch64"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the version of this program fixes what is set up."""


def run(arguments: argparse.Namespace) -> int:
    from pipeline.platforms import aarch64, aarch64_setup
    from recreate_model.support import resources

    announce = announcer(arguments)
    if aarch64.native():
        announce("this machine runs AArch64 code itself: nothing to set up")
        return 0
    root = aarch64_setup.ensure(resources.cache_folder(), announce)
    armnn = "with Arm NN" if root.has_armnn else "without Arm NN, which this distribution does not have"
    answer(
        arguments,
        lambda: {"folder": str(root.folder), "packages": root.packages, "wheels": root.wheels},
        lambda: [f"AArch64 root: {root.folder}, Python {root.python}, {armnn}"],
    )
    return 0
