"""A page in Chromium, which notes all that a user would complain of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHIFTS = """window.shifts = 0; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.shifts += entry.value;
}).observe({type: "layout-shift", buffered: true});"""


@dataclass
class Visit:
    """A page that is open, and what has gone wrong on it."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def open(self, name: str) -> Any:
        """Turn to a view, and return it."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        slug = {"Step by step": "steps", "The run": "run"}.get(name, name.lower())
        return self.page.locator(f"#view-{slug}")

    def write(self, prompt: str, length: int = 20, **settings: float) -> None:
        """Write a text, and wait until it is there and known."""
        view = self.open("Write")
        self.page.get_by_label("Prompt", exact=True).fill(prompt)
        for name, value in {"Length": length, **settings}.items():
            view.get_by_label(name, exact=True).fill(str(value))
        view.get_by_role("button", name="Write", exact=True).click()
        view.get_by_text(f"Written: {length} tokens.").wait_for()
        view.locator(".token-panel button.bar, .token-panel .bar").first.wait_for()

    def has(self, count: int) -> None:
        """Wait until the text of the view Write has so many tokens."""
        self.text.nth(count - 1).wait_for()
        assert self.text.count() == count

    @property
    def text(self) -> Any:
        """The tokens of the view Write."""
        return self.page.locator("#view-write .token-text [role=option]")


@contextmanager
def browsing(url: str, host: str = "", **options: Any) -> Iterator[Visit]:
    """Open a page. Nothing else than `host` may be asked, and the console must stay silent."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.add_init_script(SHIFTS)
        visit = Visit(context.new_page())

        def guard(route: Any) -> None:
            if route.request.url.startswith((host, "data:")):
                route.continue_()
            else:
                visit.complaints.append(f"asked for {route.request.url}")
                route.abort()

        if host:
            context.route("**/*", guard)
        visit.page.on("console", lambda said: visit.complaints.append(said.text))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.set_default_timeout(20_000)
        visit.page.goto(url)
        visit.page.get_by_role("tab", name="Write", exact=True).wait_for()
        yield visit
        browser.close()
    assert not visit.complaints, visit.complaints
