"""Pseudo-labels of what there is: a file of scores, a file of features, or images that a run has learnt to label.

:mod:`.options` says what is wanted, and :mod:`.pipeline` does it: :mod:`.tables` opens files of rows, :mod:`.scoring`
makes scores of features and :mod:`.models` of images, :mod:`.labels` makes labels of scores, :mod:`.folder` keeps them.
"""
