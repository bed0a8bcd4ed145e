"""Pieces of furniture, made of simple solids by random dimensions and parts.

Only how a piece is put together; voxels and files are not for here.
"""
