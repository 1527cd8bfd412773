"""What utcp costs, beside kernel TCP doing the same work in the same run. ``python -m benchmarks.teardown --help``."""
