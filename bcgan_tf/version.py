"""The version, apart from the names of the package, which import much."""

__version__ = "0.1.0"
