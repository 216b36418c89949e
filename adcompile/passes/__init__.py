"""Passes: one file per pass or family of rules. Import as ``adcompile.passes``."""

if __name__ != "adcompile.passes":
    raise ImportError("import adcompile.passes, not the link at the top of the repository")
