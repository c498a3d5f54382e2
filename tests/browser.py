"""The browser of the tests: a Chromium of this machine, else Playwright's own."""

import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium(playwright):
    """Start a Chromium; without one, skip the test with what to install."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if not path and not Path(playwright.chromium.executable_path).exists():
        pytest.skip("there is no Chromium here: install it, or run playwright install chromium")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return playwright.chromium.launch(executable_path=path, args=switches)


def cut_off(tab) -> list[str]:
    """What a reader cannot see whole: each part of <main> that ends right of the screen."""
    return tab.evaluate("""() => [...document.querySelectorAll("main *")].filter(
        part => part.getBoundingClientRect().right > innerWidth + 1).map(part => part.outerHTML)""")
