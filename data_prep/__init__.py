"""Meshes to voxels to one .npz file. Imports neither jax nor dnet_jax."""
