"""Encoders, projectors and prototypes."""
