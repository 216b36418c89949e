"""Trained-model files of the reference systems and of anomalib, read and written without them.

Nothing here runs code from a file: pickles are walked as data (``pickle_walk``), arrays are read
with their sizes checked first. Every file becomes a ``record.Trained`` and can be written as
another format that can hold it.
"""
