"""Count this machine's GPUs without CUDA, so that the driver can assign them without torch."""

from pathlib import Path

DEVICES, LISTED = Path("/dev"), Path("/proc/driver/nvidia/gpus")


def gpus_here() -> int:
    """Return the number of GPUs: the device files of this machine or container, else what the NVIDIA driver lists.

    A container with one of eight GPUs may see the list of all; a sandbox may see none.
    """
    devices = [path for path in DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return len(devices) or len(list(LISTED.glob("*")))
