"""The verbs of the command line, one file each.

A verb's file has a docstring whose first line says what the verb does, EXAMPLES, and a click command named `command` with
`cls=Verb`, which returns the exit status or None. The work itself is a public function elsewhere. What takes time to import
is imported in the function, so that help and completion stay quick.
"""
