"""Adding categories to a finished bundle: other banks and thresholds behind the same engine."""
