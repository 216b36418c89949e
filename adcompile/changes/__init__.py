"""What differs between two bundles, and what it cost: ``adcompile.diff(old, new)``."""
