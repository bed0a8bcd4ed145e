"""The version, in a module without imports: setuptools reads it as text."""

__version__ = '1.1.0'
