"""The programs to start from on Linux boards, in `cortex_a/` and `mali_gpu/`, as text.

Both are made of `templates/`, which are Python as they are: `classify.py` with the platform's class put in, and
`pictures.py` with the build's way of cutting pictures. They import nothing of this project. Not for: running them.
"""

from __future__ import annotations

import inspect
from types import ModuleType

from pipeline.linux.templates import classify, cortex_a, mali_gpu, pictures

PLATFORMS: dict[str, ModuleType] = {"cortex_a": cortex_a, "mali_gpu": mali_gpu}
# By the names of `recipe.Preprocess`.
_CROPS = {"central-crop": pictures.central_crop, "inception": pictures.inception, "squash": pictures.squash}
_NETWORK = f"from {cortex_a.__name__} import Network\n"
_START = '\n\nif __name__ == "__main__":\n'


def linux_programs(crop: str, model_file: str) -> dict[str, str]:
    """Path in the build folder -> source, for every platform.

    Args:
        crop: how the build's pictures are cut, as `recipe.Preprocess` calls it.
        model_file: name of the model, which lies beside the programs' folders.
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
    meant, template = _CROPS[crop], pictures.central_crop
    others = [function for function in _CROPS.values() if function is not meant]
    left_out = {f"{inspect.getsource(function)}\n\n": "" for function in others}
    return _filled(inspect.getsource(pictures), {**left_out, f"{template.__name__}(read": f"{meant.__name__}(read"})


def _filled(text: str, words: dict[str, str]) -> str:
    """Each of the words has to be there, or a template and this module have parted."""
    for word, meant in words.items():
        assert word in text, word
        text = text.replace(word, meant)
    return text
