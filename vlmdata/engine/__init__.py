"""The engine: workers measure partitions of rows; kept rows become shards, with an index and a ledger."""
