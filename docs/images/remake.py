"""Makes the pictures of the page anew: python docs/images/remake.py [RUN]

It serves a run (quickstart-1 if none is named), opens the page in Chromium (Debian's package, and
playwright from the extra `peers`), uses it, and writes page-write.png and page-inside.png here.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
PROMPT, LENGTH = "Return a list of the ", 90


def write(page: Any) -> None:
    """Write a text, and point at one of its tokens."""
    view = page.locator("#view-write")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    view.get_by_label("Temperature", exact=True).fill("0.7")
    view.get_by_label("Length", exact=True).fill(str(LENGTH))
    page.get_by_role("button", name="Write", exact=True).click()
    page.get_by_text(f"Written: {LENGTH} tokens.").wait_for()
    view.locator(".bar-value").first.wait_for()
    view.locator("[role=option]").nth(len(PROMPT) + 9).click()


def look(page: Any) -> None:
    """Open a head of the second layer."""
    page.get_by_role("tab", name="Inside").click()
    page.get_by_label("Layer 2, head 2", exact=True).click()
    page.get_by_role("heading", name="Layer 2, head 2").wait_for()
    page.mouse.move(5, 5)
    page.evaluate("() => scrollTo(0, 0)")
    page.wait_for_timeout(500)  # the maps are painted a layer in each frame


def main() -> None:
    """Make both pictures."""
    run = sys.argv[1] if len(sys.argv) > 1 else "quickstart-1"
    command = [sys.executable, "-m", "groundup", "serve", run, "--port", "0"]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        while "ready:" not in said:
            said += server.stderr.readline()
        (address,) = re.findall(r"http://\S+:\d+", said)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address)
            write(page)
            page.screenshot(path=HERE / "page-write.png")
            page.emulate_media(color_scheme="dark")
            look(page)
            upper = {"x": 0, "y": 0, "width": 1280, "height": 1500}
            page.screenshot(path=HERE / "page-inside.png", full_page=True, clip=upper)
            browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
