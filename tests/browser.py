"""Headless Chromium for tests of pages: what was logged, requested and violated is kept."""

import os
import shutil
from contextlib import contextmanager

import pytest

# no sandbox: tests may run as root in a container; the rest keeps the browser off the network
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str:
    """The path of a Chromium, or a skip; with EVALKIT_REQUIRE_BROWSER set its absence is a failure."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        if os.environ.get("EVALKIT_REQUIRE_BROWSER"):
            pytest.fail("EVALKIT_REQUIRE_BROWSER is set and there is no Chromium: apt-get install chromium")
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


class Watched:
    """A page and all that went wrong on it."""

    def __init__(self, page):
        self.page, self.trouble, self.asked = page, [], []
        page.on("console", lambda m: self.trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.add_init_script(
            "window.violated = []; addEventListener('securitypolicyviolation', e => violated.push(e.violatedDirective))"
        )

    def open(self, url, ready=True):
        self.page.goto(url)
        if ready:
            self.page.wait_for_selector("html[data-ready=yes]", timeout=15_000)
        return self.page


@contextmanager
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = chromium()
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()
