"""Deterministic images in the manner of MVTec AD: textures, objects, defects and their masks.

No photograph and no download: every pixel is computed by NumPy from a seed, so two machines make
the same data set. ``dataset.write_dataset`` writes the folder tree; ``adcompile synth`` calls it.
"""
