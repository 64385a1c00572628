"""DICOM: series of slices to volumes, and label maps to segmentation objects; extra ``dicom``.

Files are ``headers`` of slices, series of slices are ``stack``s on a regular grid, which ``voxels``
are read from. ``segmentation`` writes label maps with the ``codes`` of their classes.
"""
