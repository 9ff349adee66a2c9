"""One file for each method of pretraining: two views in, a loss out."""
