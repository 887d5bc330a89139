"""The report: one self-contained page with a dataset's contents, the loss at each step, and examples near each threshold.

It reads the ledger, the index and the manifest; pictures of rejected rows come from `work/` if it still exists.
`vlmdata.report.write.write_report` is the public function.
"""
