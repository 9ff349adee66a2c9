"""How good frozen features are, measured on images that neither pretraining nor the fit has seen."""
