"""Sphinx: warnings are errors, the reference is made from the docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from make_reference import write_reference  # noqa: E402

import visionkit  # noqa: E402

project = "visionkit"
author = "The visionkit authors"
copyright = author
release = visionkit.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings say code in single backquotes, as people write it.
default_role = "code"

html_theme = "furo"
html_title = "visionkit"
html_static_path = ["_static"]
html_show_sourcelink = False

write_reference(HERE / "reference" / "api")
