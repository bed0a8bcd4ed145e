"""The version, in a module without imports: setuptools reads it as text."""

__version__ = '1.0.0'
