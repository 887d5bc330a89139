"""The verbs of the command line, one file each.

A verb's file has a docstring (the verb's help, with a summary as its first line), EXAMPLES, and a click command named
`command` with `cls=Verb`, which returns the exit status or None. A public function elsewhere does the work. Slow imports
go into the command function, so that help and completion stay fast.
"""
