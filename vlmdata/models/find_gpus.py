"""Count this machine's GPUs without CUDA, so that the driver can assign them without torch."""

from pathlib import Path

DEVICES, LISTED = Path("/dev"), Path("/proc/driver/nvidia/gpus")


def gpus_here() -> int:
    """Return the number of GPUs of this machine or container.

    This is the number of device files in /dev or, if there are none, of entries in the NVIDIA driver's list. The device files
    come first, because in a container with one of a machine's eight GPUs, the list may still hold all eight. In a sandbox, the
    list may be empty.
    """
    devices = [path for path in DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return len(devices) or len(list(LISTED.glob("*")))
