"""What benchmarks and tests are fed with: archives, pages, tars, a certificate, and where the real data lies."""
