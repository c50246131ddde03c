"""A real Chromium, and the complaints of its pages."""

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from support.disks import unavailable
from support.waiting import PATIENCE

PATIENCE_MS = 1000 * PATIENCE
expect.set_options(timeout=PATIENCE_MS)

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.tally.test 127.0.0.1",
]
_VIOLATIONS = """
    document.addEventListener("securitypolicyviolation",
        (event) => console.error(`violates ${event.violatedDirective}: ${event.blockedURI}`));
"""
_COLOURS = """async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
    canvas.drawImage(image, 0, 0);
    const pixels = new Uint32Array(canvas.getImageData(0, 0, image.width, image.height).data.buffer);
    const counts = new Map();
    for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    return [counts.size, Math.max(...counts.values()) / pixels.length];
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; without one, the test is skipped by name.

    If the headless-only build is installed, it is used: it takes half the time.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        unavailable("Chromium", f"no {PROGRAMS[0]} on PATH, nor the like; Debian's packages are called so")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Person:
    """A person with a browser window. Every complaint of its pages is collected."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        options = {"locale": "en-US", "timezone_id": "UTC", **options}
        self.context: BrowserContext = browser.new_context(**options)
        self.context.add_init_script(_VIOLATIONS)
        self.context.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self._expected: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self._hear("error", str(error)))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def expects(self, complaint: str) -> None:
        """Forget the complaints that match, and later ones: some fetches may still be on their way.

        There must be one: Chromium logs every failed fetch.
        """
        matching = [each for each in self.complaints if re.search(complaint, each)]
        assert matching, f"nothing like {complaint!r} among {self.complaints}"
        self._expected.append(complaint)
        self.complaints = [each for each in self.complaints if each not in matching]

    def leave(self) -> None:
        """Close the window. Fails after an error in the console or a violated policy."""
        self.context.close()
        unexpected = [
            each for each in self.complaints if not any(re.search(told, each) for told in self._expected)
        ]
        assert unexpected == []


OpenWindow = Callable[..., Person]


def what_axe_blames(page: Page, **options: Any) -> AxeResults:
    """The faults that axe finds in a page, with these options of its own.

    It is loaded into a page once, and tells faults alone. Otherwise it would take three times as long.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    asked = "(options) => axe.run(options).then(({violations}) => ({violations}))"
    return AxeResults(page.evaluate(asked, {"resultTypes": ["violations"], **options}))


def look_over(page: Page, said: object = "") -> None:
    """Check that axe finds no fault, and that nothing sticks out of the page or of a dialog.

    Waits until the page's script has shown the service's state: before that, a page is half made.
    """
    expect(page.locator("[data-status]")).to_have_count(1)
    found = what_axe_blames(page)
    assert found.violations_count == 0, f"{said}: {found.generate_report()}"
    for part in page.locator("html, dialog[open]").all():
        assert part.evaluate("part => part.scrollWidth - part.clientWidth") <= 0, (said, part)


def colours(browser: Browser, png: bytes) -> tuple[int, float]:
    """The number of colours in a picture, and how much of it the most frequent one fills."""
    page = browser.new_page()
    try:
        number, share = page.evaluate(_COLOURS, base64.b64encode(png).decode())
        return int(number), float(share)
    finally:
        page.close()
