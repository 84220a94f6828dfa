"""The version, apart from the public face so that any room may read it, and those it stands on. pyproject.toml takes it from
here."""

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """The versions that decide numbers."""
    import platform
    from importlib.metadata import version

    names = ("torch", "transformers", "accelerate", "peft", "datasets")
    return {"penchant": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}
