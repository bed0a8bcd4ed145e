"""Pieces of furniture, made of simple solids with random dimensions and parts.

Only how a piece is put together is here: no voxels, no files.
"""
