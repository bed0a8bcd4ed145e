"""Experiments: all side effects live here; `dnet_jax` itself has none."""
