"""Train vision encoders with information-theoretic assignments, evaluate them, and report.

Importing this package imports neither torch nor anything else of the ``training`` extra; its modules
do. The command ``infoassign`` is ``python -m infoassign_training``.
"""
