"""Evidence for Ethos-U: the model compiled by Vela. No NPU ran, and no simulator of one."""

from __future__ import annotations

from pipeline.platforms.evidence import Evidence
from recreate_model.support.digest import Json


def check(variants: Json) -> list[Evidence]:
    """One row for all variants; none if there are no variants.

    Args:
        variants: the entries of `vela.json`.
    """
    if not variants:
        return []
    on_cpu = sorted({name for variant in variants for name in variant["cpu_operators"]})
    where = f"but for {', '.join(on_cpu)} on the CPU" if on_cpu else "every operator on the NPU"
    versions = sorted({variant["vela_version"] for variant in variants})
    return [
        Evidence(
            "Ethos U",
            "compiled",
            f"by Vela for {_counted(variants)}, {where}",
            tools=tuple(f"Vela {version}" for version in versions),
            note="speed and memory are Vela's estimates; no NPU ran",
        )
    ]


def _counted(variants: Json) -> str:
    targets = len({variant["target"]["accelerator"] for variant in variants})
    return f"{targets} targets" + (f" in {len(variants)} variants" if len(variants) != targets else "")
