"""Writes the example programs for Linux boards, `cortex_a/` and `mali_gpu/`.

Both come from `templates/`, which are valid Python: `classify.py` with the platform's class inserted, and `pictures.py`
with the build's way of cropping pictures. The programs import nothing from this project. Not for: running them.
"""

from __future__ import annotations

import inspect
from types import ModuleType

from pipeline.linux.templates import classify, cortex_a, mali_gpu, pictures

PLATFORMS: dict[str, ModuleType] = {"cortex_a": cortex_a, "mali_gpu": mali_gpu}
# The names of `recipe.Preprocess` -> the functions.
_CROPS = {"central-crop": pictures.central_crop, "inception": pictures.inception, "squash": pictures.squash}
_NETWORK = f"from {cortex_a.__name__} import Network\n"
_START = '\n\nif __name__ == "__main__":\n'


def linux_programs(crop: str, model_file: str) -> dict[str, str]:
    """Path in the build folder -> source text, for all platforms.

    Args:
        crop: how the build crops pictures, a name of `recipe.Preprocess`.
        model_file: file name of the model, in the parent folder of the programs.
    """
    files = {}
    for folder in PLATFORMS:
        files[f"{folder}/classify.py"] = _classify(folder, model_file)
        files[f"{folder}/pictures.py"] = _pictures(crop)
    return files


def _classify(folder: str, model_file: str) -> str:
    network = inspect.getsource(PLATFORMS[folder].Network)
    return _filled(
        inspect.getsource(classify),
        {
            _NETWORK: "",
            pictures.__name__: "pictures",
            _START: f"\n\n{network}{_START}",
            "platform_folder": folder,
            "model_file": model_file,
        },
    )


def _pictures(crop: str) -> str:
    chosen, template = _CROPS[crop], pictures.central_crop
    others = [function for function in _CROPS.values() if function is not chosen]
    left_out = {f"{inspect.getsource(function)}\n\n": "" for function in others}
    return _filled(inspect.getsource(pictures), {**left_out, f"{template.__name__}(read": f"{chosen.__name__}(read"})


def _filled(text: str, replacements: dict[str, str]) -> str:
    """The text with all replacements made; each must occur, else the template does not match this module."""
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text
