"""Readers of mesh files, one for each family of formats.

`read(data)` of each gives corners, float64 `(v, 3)`, and triangles, indices
`(m, 3)`; a point cloud has none. What a file says and a reader cannot follow
is a ValueError that names it and its line: never another shape.
"""
