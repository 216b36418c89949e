"""Finding anomaly heads in graphs that others exported, and writing them as ``adcompile`` ops.

Each file finds one thing: ``search`` nearest neighbours in a constant bank, ``gaussian`` the
Mahalanobis form and mean squared errors, ``score`` the image score, ``maps`` enlargement and blur,
``normal`` the normalisation. ``adcompile.passes.raise_anomaly`` runs them in that order.
"""
