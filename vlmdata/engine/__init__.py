"""The engine. Workers measure the rows, partition by partition. Kept rows become shards, with an index and a ledger."""
