"""The version, in a module without imports: setuptools reads it as text."""

__version__ = '0.1.0'
