"""How good shapes are: scores, baselines, the tables, the paper's own numbers.

It takes arrays and returns numbers. Nothing here trains or samples a model:
only tasks know how shapes are made. From `experiments` it imports only `files`
and `batches`.
"""
