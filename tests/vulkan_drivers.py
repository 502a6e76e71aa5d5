"""Vulkan drivers for tests: SwiftShader where it is installed, and broken ones that the tests compile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.platforms import vulkan, vulkan_job
from recreate_model.support.processes import run_to_end

# A constructor runs as soon as the library is loaded.
_ON_LOAD = "#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void on_load(void) {{ {} }}\n"
# A library that forwards to SwiftShader, and does something else only when a device is opened.
_FORWARDING = """
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef void (*function)(void);
typedef function (*lookup)(void *, const char *);
static void *real(void) {{ static void *h; if (!h) h = dlopen("{library}", RTLD_NOW); return h; }}
static function fail(void) {{ {action} return 0; }}
function vk_icdGetInstanceProcAddr(void *instance, const char *name) {{
  if (!strcmp(name, "vkCreateDevice")) return (function)fail;
  return ((lookup)dlsym(real(), "vk_icdGetInstanceProcAddr"))(instance, name);
}}
int vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *version) {{
  return ((int (*)(unsigned *))dlsym(real(), "vk_icdNegotiateLoaderICDInterfaceVersion"))(version);
}}
"""


def swiftshader() -> Path:
    """Manifest of SwiftShader; skips the test where it, or the loader, is missing."""
    found = vulkan.survey()
    for driver in found.drivers:
        if driver.library == "libvk_swiftshader.so" and driver.devices:
            return driver.manifest
    pytest.skip(f"no SwiftShader for Vulkan here ({vulkan.PACKAGES})")


def manifest(folder: Path, library: str, name: str = "test_icd.json") -> Path:
    """A driver manifest that names a library."""
    path = folder / name
    path.write_text(
        json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": library, "api_version": "1.1.0"}})
    )
    return path


def acting_on_load(folder: Path, action: str) -> Path:
    """Manifest of a driver that executes a C statement as soon as it is loaded."""
    if run_to_end([sys.executable, "-I", vulkan_job.__file__], 60).returncode == vulkan_job.NO_LOADER:
        pytest.skip(f"no Vulkan loader here ({vulkan.PACKAGES})")
    return manifest(folder, str(_compiled(folder, _ON_LOAD.format(action))))


def acting_on_use(folder: Path, action: str) -> Path:
    """Manifest of a driver that is SwiftShader until a device is opened, and then executes C statements."""
    library = swiftshader().with_name("libvk_swiftshader.so")
    return manifest(folder, str(_compiled(folder, _FORWARDING.format(library=library, action=action))))


def _compiled(folder: Path, source: str) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here (apt-get install gcc)")
    code, library = folder / "driver.c", folder / "libdriver.so"
    code.write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, code, "-ldl"], check=True)
    return library
