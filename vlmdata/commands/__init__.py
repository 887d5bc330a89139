"""The verbs of the command line, one file each.

A verb's file has a docstring whose first line says what it does, an EXAMPLE, `arguments(parser)` and `run(arguments)`,
which returns the exit status or None. The work itself is a public function elsewhere.
"""

STOPPED = "vlmdata: stopped; the same command goes on from here"  # here, for it is needed before anything else is imported
