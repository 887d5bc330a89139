"""The engine. Workers measure the rows, partition by partition. Kept rows are written to shards, which have an index.

A ledger holds the outcome of every row.
"""
