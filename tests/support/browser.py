"""A real Chromium, driven by Playwright: Debian's, or another that is on the PATH."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

# Where screenshots are kept, for people and as CI's artefacts.
SCREENSHOTS = Path(
    os.environ.get("TIMBREL_SCREENSHOTS") or Path(__file__).resolve().parents[2] / "build/screenshots"
)
DESK, PHONE = (1280, 860), (360, 740)
PATIENCE_SECONDS = 30


@contextmanager
def chromium(microphone: Path) -> Iterator[Browser]:
    """A headless browser whose microphone hears the WAV at ``microphone``, over and over."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    arguments = [
        "--no-sandbox",  # root has none
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A visitor at the page, and what went over the line."""

    page: Page
    url: str
    asked: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def notes(self) -> list[dict[str, Any]]:
        """The bodies of all requests to /synthesize so far."""
        return [request.post_data_json for request in self.asked if request.url.endswith("/synthesize")]

    def sounds(self) -> list[str]:
        """By which step each sound began: short, kept or nearby (see web/src/player.ts)."""
        found = self.page.evaluate(
            "performance.getEntriesByName('timbrel:first-sound').map((entry) => entry.detail.step)"
        )
        return list(found)

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for it. The page's policy forbids Playwright's own wait_for_function."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            self.page.wait_for_timeout(20)

    def pixel(self, x: float, y: float, radius: float = 1.0) -> tuple[float, float]:
        """Where a place of the map lies on the screen, as long as nobody has zoomed."""
        box = self.page.locator(".canvas canvas").bounding_box()
        assert box is not None
        unit = min(box["width"], box["height"]) / 2 / (1.06 * radius)
        return box["x"] + box["width"] / 2 + unit * x, box["y"] + box["height"] / 2 - unit * y

    def picture(self, name: str, *, whole: bool = False) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


@contextmanager
def visit(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESK,
    scheme: Literal["light", "dark"] = "light",
    touch: bool = False,
    before: str = "",
) -> Iterator[Visit]:
    """A new visitor. ``before``: a script that runs ahead of the page's. Nothing may come from another host; whoever
    expects complaints on the console clears them."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        accept_downloads=True,
        has_touch=touch,
        permissions=["microphone"],
    )
    if before:
        context.add_init_script(before)
    page = context.new_page()
    visitor = Visit(page, url)
    page.on("request", lambda request: visitor.asked.append(request))
    page.on("console", lambda message: message.type == "error" and visitor.complaints.append(message.text))
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    try:
        page.goto(url)
        yield visitor
        assert visitor.complaints == []
        strangers = [each.url for each in visitor.asked if not each.url.startswith((url, "blob:"))]
        assert strangers == []
    finally:
        context.close()
