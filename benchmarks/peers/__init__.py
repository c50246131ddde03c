"""The same work by what a Python user would take instead; needs the extra `benchmarks`."""
