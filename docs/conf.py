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
    "theorems",
]
html_theme = "furo"
html_title = "infoassign"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Every function, module and field that is named is documented. Types are not looked for: most are of other libraries,
# whose names there is no network for, and those of ours are also written in signatures under names that are not public.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!(~|\w+\[~?)?infoassign).*"), ("py:obj", ".*")]

napoleon_google_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Doctests of docstrings run under pytest; here those of the pages do.
doctest_test_doctest_blocks = ""
