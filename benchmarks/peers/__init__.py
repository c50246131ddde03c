"""The same work with other Python frameworks; needs the extra `benchmarks`."""
