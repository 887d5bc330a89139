"""What the driver does: hand out partitions, decide over all rows, publish the result."""
