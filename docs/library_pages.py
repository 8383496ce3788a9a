"""The pages of the client libraries: their READMEs, with links to the site's other pages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CLIENTS: Final = Path(__file__).parents[1] / "clients"
LIBRARIES: Final = ("python", "go", "typescript", "java", "cpp", "rust")


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page, below the folder `libraries`."""
    text = _on_the_site((_CLIENTS / "README.md").read_text("utf-8"))
    listed = "\n".join(LIBRARIES)
    yield "index", f"{text}\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    for name in LIBRARIES:
        yield name, _on_the_site((_CLIENTS / name / "README.md").read_text("utf-8"))


def _on_the_site(text: str) -> str:
    for pattern, replacement in (
        ("```rust,no_run", "```rust"),
        (r"\]\(\.\./\.\./docs/", "](../"),
        (r"\]\(\.\./README\.md", "](index.md"),
        (r"\]\((\w+)/README\.md", r"](\1.md"),
    ):
        text = re.sub(pattern, replacement, text)
    return text
