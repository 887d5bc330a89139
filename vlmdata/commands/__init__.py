"""The verbs of the command line, one file each.

A verb's file has a docstring (the verb's help, with a summary as its first line), EXAMPLES, and a function `command`, which is
a click command with `cls=Verb`. The function returns the exit status, or None for success. It calls a public function outside
of this folder, which does the work. Slow imports are inside `command`, so that help and completion stay fast.
"""
