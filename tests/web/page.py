"""A real Chromium, driven by playwright-core in a process of its own."""

import base64
import json
import mimetypes
import subprocess
from pathlib import Path
from typing import Any

_DRIVER = Path(__file__).parent / "driver.mjs"
_ANSWERED = "document.getElementById('status').innerText.includes('decoding')"


class Browser:
    """It has one page at a time."""

    def __init__(self, node: str, chromium: str) -> None:
        self._driver = subprocess.Popen(
            [node, _DRIVER, chromium], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End it."""
        self._driver.communicate(timeout=30)

    def do(self, command: str, **given: Any) -> Any:
        """Return what a command of driver.mjs gives."""
        assert self._driver.stdin
        assert self._driver.stdout
        print(json.dumps({"command": command, **given}), file=self._driver.stdin, flush=True)
        answer = json.loads(self._driver.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]


class Page:
    """What a person does with the playground, and sees of it."""

    def __init__(
        self, browser: Browser, url: str, permissions: tuple[str, ...] = (), **options: Any
    ) -> None:
        self.do = browser.do
        # Chromium reports each answer that is an error, and so do we.
        self.expected_troubles: list[str] = []
        self.do("open", url=url, permissions=permissions, options=options)

    def close(self) -> list[str]:
        """Close it; return violations of its policy, errors, and requests to elsewhere."""
        troubles: list[str] = self.do("close")
        return troubles

    def look(self) -> Any:
        """Return what look.mjs sees."""
        return self.do("look")

    def pick(self, picture: Path) -> Any:
        """Choose a picture; return what is seen once all models have answered."""
        self.do("choose", selector="#pick", file=str(picture))
        return self.answered()

    def give(self, how: str, picture: Path) -> None:
        """Drop or paste a picture."""
        kind, _ = mimetypes.guess_type(picture)
        encoded = base64.b64encode(picture.read_bytes()).decode()
        self.do("give", how=how, name=picture.name, type=kind, base64=encoded)

    def answered(self) -> Any:
        """Return what is seen once all models have answered."""
        self.until(_ANSWERED)
        return self.look()

    def slide(self, label: str, value: float) -> Any:
        """Move a slider; return what is seen at once."""
        self.do("fill", selector=f"role=slider[name=/^{label}/]", value=str(value))
        return self.look()

    def trouble(self) -> str:
        """Return what went wrong, once something has."""
        self.until("document.getElementById('trouble').innerText")
        text: str = self.look()["trouble"]
        return text

    def show_token(self, token: str) -> None:
        """Enter the token that the page asks for."""
        self.until("document.activeElement.id === 'token-field'")
        self.do("fill", selector="#token-field", value=token)
        self.do("press", key="Enter")

    def until(self, script: str) -> None:
        """Wait until something in the page is true."""
        self.do("until", script=script)

    def evaluate(self, script: str, given: Any = None) -> Any:
        """Return what a function of JavaScript returns in the page."""
        return self.do("evaluate", script=script, given=given)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What has been asked of the server: each call's method and fields, but no picture."""
        calls: list[dict[str, Any]] = self.do("calls")
        return calls

    def tab_to(self, selector: str) -> None:
        """Press Tab until something has the focus."""
        for _ in range(60):
            self.do("press", key="Tab")
            if self.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"the keyboard does not lead to {selector}")
