"""Readers of mesh files, one for each family of formats.

`read(data)` of each gives corners, float64 `(v, 3)`, and triangles, indices
`(m, 3)`; a point cloud has none. Content that a reader does not support is a
ValueError that names it and its line, and never a wrong shape.
"""
