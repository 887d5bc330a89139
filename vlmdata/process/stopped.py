"""The last line of a stopped command. This file imports nothing, so that it loads before the signal handlers are set."""

STOPPED = "vlmdata: stopped; run the same command again to resume"
