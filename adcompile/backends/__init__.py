"""Backends: one folder per target family. Import as ``adcompile.backends``."""

if __name__ != "adcompile.backends":
    raise ImportError("import adcompile.backends, not the link at the top of the repository")
