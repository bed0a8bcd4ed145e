"""Pages for a browser: reports of models, and one to work with a model.

They need no network. Shapes are drawn by shapes.js, on the processor.
"""
