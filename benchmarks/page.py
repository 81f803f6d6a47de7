"""Claim: the page stays quick with a large model: 124M parameters, 1,000 tokens, 144 heads.

    python benchmarks/page.py

A random GPT-2 of GPT-2's shape is served, and the page is opened in Chromium (Debian's package, and
playwright from the extra `peers`), on the same cores. Measured are, from the click on in a page
that is there: the prompt's text, its colours, the maps of all heads, and a head that is opened;
then the frames while text and map are scrolled and pointed at; and the longest task of the page's
thread.

The last line's ratio is the smallest of those of a bar to what was measured: above 1 all are met.
"""

import importlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common import conclude, machine
from decode import build_random
from groundup.checkpoints import model_folder
from groundup.models.config import GPTConfig
from groundup.tokenizers.gpt2 import gpt2_tokenizer
from serving import running_server

TOKENS = 1000
# seconds, but frames and tasks, which are milliseconds
BARS = {"text": 1.0, "colours": 3.0, "maps": 5.0, "head": 1.0, "frame": 1000 / 30, "task": 100.0}
WATCH = """window.longest = 0;
new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({type: "longtask", buffered: true});"""
FRAMES = """() => { window.frames_seen = []; let before = performance.now();
  const note = now => { window.frames_seen.push(now - before); before = now;
    window.frame_task = requestAnimationFrame(note); };
  window.frame_task = requestAnimationFrame(note); }"""
# whether the last map has been painted: anything but clear pixels
PAINTED = """() => { const all = [...document.querySelectorAll("#view-inside .maps canvas")];
  const last = all.at(-1); if (all.length < 12 || last.height < 64) return false;
  const {data} = last.getContext("2d").getImageData(last.width - 64, 0, 64, 64);
  return data.some(value => value > 0); }"""
COLOURED = """() => { const all = document.querySelectorAll("#view-write [role=option]");
  return all.length >= 1000 && all[999].style.backgroundColor.includes("color-mix"); }"""
SHOWN = "() => document.querySelector('#view-write .token-text').textContent.length > 1000"


def a_text() -> str:
    """About a thousand of GPT-2's tokens."""
    tokenizer = gpt2_tokenizer()
    words = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    return tokenizer.decode(tokenizer.encode(words * 3)[:TOKENS].tolist())


def seconds_until(page: Any, condition: str, act: Callable[[], object]) -> float:
    """Do something, and return the seconds until a condition holds in the page."""
    begun = time.perf_counter()
    act()
    while not page.evaluate(condition):
        assert time.perf_counter() - begun < 120, condition
        time.sleep(0.05)  # asking takes the time of the page, too
    return time.perf_counter() - begun


def frames(page: Any, act: Callable[[], object]) -> float:
    """Return the median milliseconds between two frames while something is done."""
    page.evaluate(FRAMES)
    act()
    page.evaluate("() => cancelAnimationFrame(window.frame_task)")
    return statistics.median(page.evaluate("() => window.frames_seen"))


def move(page: Any, selector: str) -> None:
    """Point at many places of an element, and scroll it."""
    box: Any = page.locator(selector).first.bounding_box()
    for step in range(60):
        across, down = (step * 37 % 60) / 60, (step * 23 % 60) / 60
        page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
        page.mouse.wheel(0, 60 if step % 20 < 10 else -60)


def measure(page: Any, url: str) -> dict[str, float]:
    """Use the page as somebody would, and return what was measured by the names of the bars."""
    page.goto(url, wait_until="networkidle")
    page.get_by_label("Prompt", exact=True).fill(a_text())
    page.locator("#view-write").get_by_label("Length", exact=True).fill("1")
    write = page.get_by_role("button", name="Write", exact=True)
    begun = time.perf_counter()
    found = {"text": seconds_until(page, SHOWN, write.click)}
    seconds_until(page, COLOURED, lambda: None)
    found["colours"] = time.perf_counter() - begun
    page.get_by_text("Written: 1 tokens.").wait_for()
    found["maps"] = seconds_until(page, PAINTED, page.get_by_role("tab", name="Inside").click)
    title = "() => document.querySelector('.head-title')?.textContent === 'Layer 7, head 8'"
    found["head"] = seconds_until(
        page, title, page.get_by_label("Layer 7, head 8", exact=True).click
    )
    places = ["#view-inside .token-text", "#view-inside .head-canvas"]
    found["frame"] = max(frames(page, lambda place=place: move(page, place)) for place in places)
    found["task"] = page.evaluate("() => window.longest")
    return found


def main() -> None:
    torch.set_num_threads(2)
    print(machine(), flush=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    sync_api: Any = importlib.import_module("playwright.sync_api")  # of the extra `peers`
    with tempfile.TemporaryDirectory() as place, sync_api.sync_playwright() as playwright:
        folder = Path(place) / "large"
        model_folder.save(folder, build_random("gpt2", GPTConfig()), gpt2_tokenizer())
        with running_server(folder, 4) as (port, _):
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(bypass_csp=True, viewport={"width": 1280, "height": 900})
            context.add_init_script(WATCH)
            found = measure(context.new_page(), f"http://127.0.0.1:{port}/")
            browser.close()
    for name, value in found.items():
        print(f"  {name}: {value:.3g} of at most {BARS[name]:.3g}")
    worst = min(found, key=lambda name: BARS[name] / max(found[name], 1e-9))
    claim = "the page keeps its bars with 124M parameters and 1,000 tokens"
    ratio = BARS[worst] / max(found[worst], 1e-9)
    conclude(claim, ratio=ratio, ours=found[worst], peer=BARS[worst], unit=worst)


if __name__ == "__main__":
    main()
