"""Benchmarks and checks at full size, run by hand or by `make bench`; each prints what it compares with."""
