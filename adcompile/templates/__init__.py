"""Templates: text of generated files. Import as ``adcompile.templates``."""

if __name__ != "adcompile.templates":
    raise ImportError("import adcompile.templates, not the link at the top of the repository")
