"""The line that a stopped command prints last. This file imports nothing, so it loads before the signal handlers are set."""

STOPPED = "vlmdata: stopped; run the same command again to resume"
