"""The plan of a dataset, its partitions, the log of each partition, and tombstones."""
