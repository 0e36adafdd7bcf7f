"""Displacement fields: native grid, inversion, Jacobian determinants, files. Knows neither networks nor data sets.

A ddf (dense displacement field) is in voxels of the fixed grid, in the order of the tensor's axes, and pulls back:
warped(x) = moving(x + ddf(x)).
"""
