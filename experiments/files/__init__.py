"""What the program reads and writes: checkpoints, data, shapes, logs, pictures.

Nothing here knows a network, an algorithm or a task: it imports nothing of
`experiments` but its own files.
"""
