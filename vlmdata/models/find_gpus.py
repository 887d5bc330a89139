"""What this machine has for models, without asking CUDA: the driver needs no torch to hand GPUs out."""

from pathlib import Path

DEVICES, LISTED = Path("/dev"), Path("/proc/driver/nvidia/gpus")


def gpus_here() -> int:
    """Return how many GPUs there are: the devices that this machine or container was given, else what the driver lists.

    A container with one of eight may be shown the list of all, and a sandbox may be shown none.
    """
    given = [path for path in DEVICES.glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return len(given) or len(list(LISTED.glob("*")))
