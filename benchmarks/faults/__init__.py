"""Faults injected into the package, and what came of them: ``python -m benchmarks.faults -h``."""
