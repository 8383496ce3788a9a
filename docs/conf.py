"""Sphinx's configuration: `make docs` builds the site into `docs/_build/html`."""

import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generated

generated.write(Path(__file__).parent)

project = "visavis"
author = "the visavis authors"
version = release = metadata.version("visavis-server")
# At the foot of every page.
copyright = f"{author}; Apache-2.0; version {release}"  # noqa: A001  Sphinx's own name

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_llm.txt"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "attrs_inline"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
# Links to files of the repository that are not pages of the site become downloads.
nitpicky = True

html_theme = "shibuya"
html_title = f"visavis {version}"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"accent_color": "teal", "show_ai_links": False}
llms_txt_description = (
    "visavis exports vision models from PyTorch to ONNX, proves that the files give the same "
    "answers as the originals, serves them over gRPC and HTTP, and compares them on your pictures."
)


def _link_within_the_site(app, docname, source):  # type: ignore[no-untyped-def]  # Sphinx's event
    """Point links to files of the repository at the pages that include them."""
    text = source[0].replace("](../SECURITY.md", "](explanation/security.md")
    text = re.sub(r"\]\((?:\.\./)+clients/README\.md", "](/libraries/index.md", text)
    source[0] = re.sub(r"\]\((?:\.\./)+clients/(\w+)/README\.md", r"](/libraries/\1.md", text)


def _complete_the_twins(app, exception):  # type: ignore[no-untyped-def]  # Sphinx's event
    """Put the screenshots where the Markdown twins look for them."""
    if app.builder.format == "html" and exception is None:
        screenshots = Path(app.srcdir, "screenshots")
        shutil.copytree(screenshots, Path(app.outdir, "screenshots"), dirs_exist_ok=True)


def setup(app):  # type: ignore[no-untyped-def]  # called by Sphinx
    """Register the events."""
    app.connect("source-read", _link_within_the_site)
    app.connect("build-finished", _complete_the_twins)
