"""The output of a run: samples in tars, the index, the ledger and the manifest."""
