"""What a run publishes: samples in tars, the index, the ledger and the manifest."""
