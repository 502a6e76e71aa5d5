"""Prints the Vulkan devices as a JSON list; a script for a separate process.

For: isolating a driver's crash. The environment variable VK_DRIVER_FILES selects the driver. Not for: using a device;
none is opened. It needs only the standard library. The structures are from vulkan_core.h, version 1.2; later versions
keep their layout.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys

NO_LOADER = 3  # exit status
_APPLICATION_INFO, _INSTANCE_CREATE_INFO, _PROPERTIES_2, _DRIVER_PROPERTIES = 0, 1, 1000059001, 1000196000
_VULKAN_1_2 = (1 << 22) | (2 << 12)
# VK_ERROR_INITIALIZATION_FAILED, VK_ERROR_INCOMPATIBLE_DRIVER: the errors of drivers that find no device.
_NO_DEVICE = (-3, -9)
_PROPERTIES_SIZE = 4096  # bytes; VkPhysicalDeviceProperties has 824, with room for a newer driver
_NAME_SIZE = 256  # VK_MAX_PHYSICAL_DEVICE_NAME_SIZE, VK_MAX_DRIVER_NAME_SIZE, VK_MAX_DRIVER_INFO_SIZE


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("application", ctypes.c_char_p),
        ("application_version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint32),
    )


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.POINTER(_ApplicationInfo)),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


class _DriverProperties(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_char * _NAME_SIZE),
        ("info", ctypes.c_char * _NAME_SIZE),
        ("conformance", ctypes.c_uint8 * 4),
    )


class _Properties2(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.POINTER(_DriverProperties)),
        ("properties", ctypes.c_uint64 * (_PROPERTIES_SIZE // 8)),
    )


def devices(vulkan: ctypes.CDLL) -> list[dict[str, object]]:
    """Every physical device: `name`, `type`, `vendor`, `api_version`, `driver_version`, `driver_id`, `driver`, `info`.

    Versions and IDs are encoded as in Vulkan; the last three are None for a device older than Vulkan 1.2.

    Raises:
        OSError: a call failed; the message has the VkResult.
    """
    application = _ApplicationInfo(type=_APPLICATION_INFO, api_version=_VULKAN_1_2)
    create = _InstanceCreateInfo(type=_INSTANCE_CREATE_INFO, application=ctypes.pointer(application))
    instance, count = ctypes.c_void_p(), ctypes.c_uint32()
    if not _succeeded(vulkan.vkCreateInstance(ctypes.byref(create), None, ctypes.byref(instance))):
        return []
    if not _succeeded(vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)):
        return []
    handles = (ctypes.c_void_p * count.value)()
    if not _succeeded(vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)):
        return []
    return [_device(vulkan, ctypes.c_void_p(handle)) for handle in handles[: count.value]]


def _device(vulkan: ctypes.CDLL, handle: ctypes.c_void_p) -> dict[str, object]:
    plain = ctypes.create_string_buffer(_PROPERTIES_SIZE)
    vulkan.vkGetPhysicalDeviceProperties(handle, plain)
    api_version, driver_version, vendor, _, kind, name = struct.unpack_from(f"<5I{_NAME_SIZE}s", plain)
    driver = _DriverProperties(type=_DRIVER_PROPERTIES)
    has_driver_info = api_version >= _VULKAN_1_2
    if has_driver_info:
        more = _Properties2(type=_PROPERTIES_2, next=ctypes.pointer(driver))
        vulkan.vkGetPhysicalDeviceProperties2(handle, ctypes.byref(more))
    return {
        "name": _text(name),
        "type": kind,
        "vendor": vendor,
        "api_version": api_version,
        "driver_version": driver_version,
        "driver_id": driver.id if has_driver_info else None,
        "driver": _text(driver.name) if has_driver_info else None,
        "info": _text(driver.info) if has_driver_info else None,
    }


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("utf-8", "replace")


def _succeeded(status: int) -> bool:
    """Whether a call succeeded; False if the driver found no device.

    Raises:
        OSError: the call failed.
    """
    if status < 0 and status not in _NO_DEVICE:
        raise OSError(f"VkResult {status}")
    return status >= 0


def main() -> int:
    """Prints the devices; returns 0, 1 if a call failed, or `NO_LOADER` if the Vulkan loader is missing."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError as error:
        print(error, file=sys.stderr)
        return NO_LOADER
    try:
        print(json.dumps(devices(vulkan)))
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
