"""The generators, one per file. A recipe names a generator as `generator: {NAME: {parameter: value}}`."""
