"""The report: one self-contained page that says what a dataset holds, what each step cost it, and what lies at the margins.

Everything is read from the ledger, the index and the manifest; `work/`, where it still is, gives the pictures of rejected
rows. `vlmdata.report.write.write_report` is the public function.
"""
