"""Runs the `vlmdata` command.

Ctrl-C or SIGTERM during the slow imports ends the process at once, because no work has started.
"""

import os
import signal
import sys

from vlmdata.process.stopped import STOPPED


def main() -> int:
    """Run `vlmdata` with the arguments of this process, and return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    from vlmdata import cli

    return cli.main()


def _stop(number: int, frame: object) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
