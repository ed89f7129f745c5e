"""What a result may depend on besides its settings: versions, processors, devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from bcgan_tf.version import __version__

_PACKAGES = ("tensorflow", "keras", "numpy", "cleverhans")


def environment() -> dict[str, Any]:
    """Python, package versions, processors and devices; no host name, no user, no paths."""
    import tensorflow as tf

    devices = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        devices.append(" ".join(filter(None, (device.device_type, details.get("device_name")))))
    return {
        "python": platform.python_version(),
        "bcgan_tf": __version__,
        **{package: _version(package) for package in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "devices": devices,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
