"""The report: one self-contained page with a dataset's contents, the rows that each step drops, and examples near thresholds.

It is made from the ledger, the index and the manifest. Pictures of rejected rows are read from `work/` if it still exists.
`vlmdata.report.write.write_report` is the public function.
"""
