"""How good shapes are: scores, baselines, the tables, the paper's own numbers.

It takes arrays and says numbers. Nothing here trains or samples a model, and it
imports `experiments.files` only: how shapes are made is what tasks know.
"""
