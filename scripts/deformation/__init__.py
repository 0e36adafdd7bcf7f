"""Displacement fields: native grid, inversion, Jacobian determinants, files. Knows neither networks nor data sets.

A ddf is in voxels of the fixed grid, tensor-axis order, pull-back: warped(x) = moving(x + ddf(x)).
"""
