"""The verbs of the trainer's command line, one file each, as in `vlmdata.commands`."""
