"""Where each sample lies: tars are found, scanned and indexed."""
