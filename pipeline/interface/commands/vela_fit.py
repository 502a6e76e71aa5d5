"""`vela --sram KIB`: which memory mode fits that much SRAM."""

from __future__ import annotations

import argparse

FLAG = "sram"
REPLACES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sram",
        type=int,
        metavar="KIB",
        help="try every memory mode on each target's memory system instead, for speed and for size, and say which fit",
    )


def run(arguments: argparse.Namespace) -> int:
    from pipeline import console
    from pipeline.engine.work import model_file
    from pipeline.ethos_u import fit
    from pipeline.ethos_u.targets import parse_targets
    from pipeline.interface.commands import answer, bring_up_to_date
    from pipeline.interface.views import vela_fit as vela_fit_view
    from pipeline.request.opened import TRYING, open_build
    from recreate_model.support.errors import UsageError

    if arguments.sram < 1:
        raise UsageError(
            expected="--sram to be at least 1 KiB",
            found=str(arguments.sram),
            next_step="give a size in KiB, for example --sram 512",
        )
    progress = console.progress(arguments.quiet or arguments.json)
    build = open_build(arguments, TRYING, progress, may_fetch=True)
    recipe, machine, request = build.recipe, build.machine, build.request
    # A trial does not depend on the variants that the build has.
    tried = parse_targets(request.targets, arguments.optimize or "both", machine.vela_config)
    targets = fit.candidates(tried, machine.vela_config)
    bring_up_to_date((build.model_stage,), build, arguments)
    model = (build.folder / model_file(recipe)).read_bytes()
    with progress.bar("compiling for Ethos-U", len(targets)) as advance:
        plans = fit.plans(model, recipe.name, targets, machine.workers, advance, machine.vela_config)
    found = fit.document(recipe.name, plans, arguments.sram, request.vela_config)
    answer(arguments, lambda: found, lambda: vela_fit_view.blocks(found))
    return 0
