"""Pages for a browser: reports on models, and a page to work with a model.

They need no network. Shapes are drawn by shapes.js, on the CPU.
"""
