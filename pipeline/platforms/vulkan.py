"""Lists the Vulkan devices of this machine, one driver at a time.

For: choosing a device for the GPU delegate, and naming it. Each driver is queried in a separate process (`vulkan_job`),
because it may crash. Not for: using a device.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.platforms import vulkan_job
from recreate_model.support.digest import document_fault
from recreate_model.support.processes import last_line, run_to_end

PACKAGES = "apt-get install libvulkan1 chromium-common"  # the loader, and SwiftShader with its manifest

_QUERY_LIMIT = 30  # seconds; a query takes a tenth of one
_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # in order of precedence
# SwiftShader of browsers, which the loader does not find by itself; then the folders that the loader searches on Linux.
_MANIFEST_PATHS = (
    "/usr/lib/chromium/vk_swiftshader_icd.json",
    "/usr/lib/chromium-browser/vk_swiftshader_icd.json",
    "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
    "/opt/google/chrome/vk_swiftshader_icd.json",
    "/usr/local/etc/vulkan/icd.d",
    "/etc/vulkan/icd.d",
    "/usr/local/share/vulkan/icd.d",
    "/usr/share/vulkan/icd.d",
)
# VkPhysicalDeviceType: integrated, discrete and virtual GPUs; 4 is a software device on the CPU.
_HARDWARE = (1, 2, 3)
_ARM_DRIVER, _ARM = 9, 0x13B5  # VK_DRIVER_ID_ARM_PROPRIETARY, and Arm's vendor ID


@dataclass(frozen=True)
class Device:
    """A physical device as described by its driver.

    Attributes:
        name: of the device.
        driver: name and version of the driver.
        api: supported version of Vulkan, such as `1.3.0`.
        hardware: False for a software device.
        mali: whether it is a Mali GPU with Arm's own driver.
    """

    name: str
    driver: str
    api: str
    hardware: bool
    mali: bool

    def __str__(self) -> str:
        kind = "" if self.hardware else " (software)"
        return f"{self.name}{kind}, {self.driver}, Vulkan {self.api}"


@dataclass(frozen=True)
class Driver:
    """A Vulkan driver and its devices, hardware first.

    Attributes:
        manifest: path of its JSON file, which the loader reads.
        library: file name of its shared library.
        devices: its devices.
        fault: why the query failed; empty if it succeeded, even without devices.
    """

    manifest: Path
    library: str = ""
    devices: tuple[Device, ...] = ()
    fault: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that make the loader use only this driver."""
        return dict.fromkeys(_VARIABLES, str(self.manifest))


@dataclass(frozen=True)
class Survey:
    """The Vulkan drivers of this machine.

    Attributes:
        loader: False if there are drivers but no loader (libvulkan.so.1).
        drivers: those with hardware devices first; empty without a loader.
    """

    loader: bool
    drivers: tuple[Driver, ...]


def survey() -> Survey:
    """Queries the drivers that VK_DRIVER_FILES or VK_ICD_FILENAMES names, else all installed drivers.

    SwiftShader is the first of the software devices, because the delegate runs on it.
    """
    drivers = []
    for manifest in _manifests():
        try:
            library = _library(manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            drivers.append(Driver(manifest, fault=f"no driver manifest: {document_fault(error)}"))
            continue
        done = run_to_end([sys.executable, "-I", vulkan_job.__file__], _QUERY_LIMIT, Driver(manifest).settings)
        if done.returncode == vulkan_job.NO_LOADER:
            return Survey(False, ())
        if done.returncode:
            drivers.append(Driver(manifest, library, fault=reason(done)))
        else:
            devices = sorted(map(_device, json.loads(done.stdout)), key=lambda device: not device.hardware)
            drivers.append(Driver(manifest, library, tuple(devices)))
    drivers.sort(key=lambda driver: not any(device.hardware for device in driver.devices))
    return Survey(True, tuple(drivers))


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process of `run_to_end` failed: the signal that ended it, else the last line of its output."""
    if done.returncode < -1:
        return f"ended by {signal.Signals(-done.returncode).name}"
    return last_line(done)


def _manifests() -> Iterator[Path]:
    """The manifests of the drivers to query."""
    named = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), None)
    paths = _MANIFEST_PATHS if named is None else named.split(os.pathsep)
    for path in map(Path, filter(None, paths)):
        if path.is_dir():
            yield from sorted(path.glob("*.json"))
        elif named or path.is_file():
            yield path


def _library(manifest: Path) -> str:
    """The file name of the library, from a manifest of the form {"ICD": {"library_path": ...}}."""
    document = json.loads(manifest.read_text(encoding="utf-8"))
    return Path(document["ICD"]["library_path"]).name


def _device(found: dict[str, Any]) -> Device:
    version = found["info"] or _version(found["driver_version"])
    known = found["driver_id"] is not None
    return Device(
        name=found["name"],
        driver=f"{found['driver'] or 'driver'} {version}",
        api=_version(found["api_version"]),
        hardware=found["type"] in _HARDWARE,
        mali=found["driver_id"] == _ARM_DRIVER if known else found["vendor"] == _ARM,
    )


def _version(packed: int) -> str:
    return f"{packed >> 22 & 127}.{packed >> 12 & 1023}.{packed & 4095}"
