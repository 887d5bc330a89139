"""The last line of a command that was stopped. The file imports nothing, so that it is there before the signals are handled."""

STOPPED = "vlmdata: stopped; run the same command again to resume"
