"""Sphinx: warnings are errors, the reference is made from the docstrings, nothing is fetched unasked."""

from __future__ import annotations

import os
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

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "signatures",
]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
smartquotes = False  # flags and error texts are searched for as they are
# The notebook is shown as it was run; tests/test_docs.py runs its code.
nb_execution_mode = "off"

# Links into other documentations need their inventories, which VISIONKIT_DOCS_LINKS=1 has fetched.
if os.environ.get("VISIONKIT_DOCS_LINKS") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_timeout = 10
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "torchvision": ("https://docs.pytorch.org/vision/stable", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable", None),
        "torchmetrics": ("https://lightning.ai/docs/torchmetrics/stable", None),
    }

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True  # `TransferConfig()`, not every field of it
python_maximum_signature_line_length = 80  # longer ones have a line an argument
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
