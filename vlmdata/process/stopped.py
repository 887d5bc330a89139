"""The last line that a stopped command prints. This file has no imports, so that it can load before the handlers are set."""

STOPPED = "vlmdata: stopped; run the same command again to resume"
