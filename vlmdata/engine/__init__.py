"""How rows become shards: partitions of rows, workers that measure them, tars, index and ledger."""
