"""Web archives (WARC, ARC): records, pages and the images they hold."""
