"""Sphinx configuration."""

import sys
from pathlib import Path

import infoassign

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "infoassign"
author = "the infoassign authors"
project_copyright = "2026, the infoassign authors"
release = version = infoassign.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx-mathjax-offline",  # formulas without a content network
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "fields",
    "links",
    "reproduction",
    "theorems",
]
html_theme = "furo"
html_title = "infoassign"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build", "_ext", "measured"]  # tables that pages include

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

# What is named is documented. Types of other libraries are not looked for, which would take a network, and neither is
# the code in the table of the theory, most of which is not public.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!infoassign).*"), ("py:obj", ".*")]
# The one stands for any type, the other for either of two that are documented.
nitpick_ignore = [("py:class", "infoassign_training.timing.Item"), ("py:class", "infoassign.scores.Scores")]

napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Doctests of docstrings run under pytest; here those of the pages do.
doctest_test_doctest_blocks = ""
