"""The version, apart from the public face so that any room may read it. pyproject.toml takes it from here."""

__version__ = "0.1.0"
