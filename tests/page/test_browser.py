"""The page as people use it: in a real browser, by mouse and by keyboard, on the real server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup
from commands import flags, trained, write_text
from conftest import Cli
from groundup.models.sampling import probabilities_of, window_start
from page.browsing import CHROMIUM, browsing
from serving.servers import LETTERS, Served, served, small_model

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
VIEWS = "Write", "Inside", "Step by step", "Sampling", "The run"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("page") / "little")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Served]:
    with served(model) as found:
        yield found


@pytest.fixture
def address(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}/"


def asked(server: Served, **body: Any) -> Any:
    answer = server.ask("/v1/inspect", body)
    assert answer.status == 200, answer.body
    return answer.json


def tokens_of(visit: Any) -> list[int]:
    """The tokens that the page shows, by their ids."""
    shown = visit.text.all_inner_texts()
    return LETTERS.encode("".join(each.replace("⏎", "") for each in shown)).tolist()


def test_a_text_streams_and_no_line_moves(server: Served, address: str) -> None:
    """256 tokens, four times the context, as the engine writes them with this seed."""
    with browsing(address, address) as visit:
        visit.write("once upon", 256, Seed=5)
        assert visit.text.count() == 9 + 256
        assert visit.page.evaluate("window.shifts") == 0
        expected = server.complete(prompt="once upon", max_tokens=256, seed=5)["choices"][0]["text"]
        assert LETTERS.decode(tokens_of(visit)) == "once upon" + expected
        view = visit.open("Write")
        view.get_by_role("button", name="Continue").click()
        visit.has(521)
        # past the context the model sees a window, and Inside says so
        inside = visit.open("Inside")
        inside.get_by_text("the model", exact=False).first.wait_for()
        assert (
            inside.locator(".token-text [role=option], [role=listbox] [role=option]").count() <= 64
        )


def test_probabilities_and_alternatives_are_those_of_the_server(
    server: Served, address: str
) -> None:
    with browsing(address, address) as visit:
        visit.write("once upon", 12, Seed=2)
        tokens = tokens_of(visit)
        known = asked(server, prompt=tokens)["tokens"]
        panel = visit.page.locator("#view-write .token-panel")
        for index in (3, 15):
            visit.text.nth(index).hover()
            said = panel.inner_text()
            chance = 100 * torch.tensor(known[index]["logprob"]).exp().item()
            assert shown_percent(chance) in said
            bars = panel.locator(".bar-value").all_inner_texts()
            for bar, each in zip(bars, known[index]["top"], strict=False):
                assert bar == shown_percent(100 * torch.tensor(each["logprob"]).exp().item())


def shown_percent(hundredths: float) -> str:
    """A probability as kit.js writes it."""
    if hundredths < 0.0005:
        return "<0.001\u00a0%"
    digits = 1 if hundredths >= 9.995 else 2 if hundredths >= 0.995 else 3
    return f"{hundredths:.{digits}f}\u00a0%"


def test_an_alternative_begins_a_branch(address: str) -> None:
    with browsing(address, address) as visit:
        visit.write("once upon", 12, Seed=2)
        before = visit.text.all_inner_texts()
        visit.text.nth(12).click()
        choice = visit.page.locator("#view-write .token-panel button.bar").nth(2)
        name = choice.locator(".bar-name").inner_text()
        choice.click()
        visit.page.locator("#view-write .branch").nth(1).wait_for()
        visit.has(25)
        after = visit.text.all_inner_texts()
        assert after[:12] == before[:12]
        assert after[12].strip() == name.strip("␣")
        visit.page.locator("#view-write .branch").first.click()
        visit.has(21)
        assert visit.text.all_inner_texts() == before


def test_by_keyboard_alone(address: str) -> None:
    with browsing(address, address) as visit:
        page = visit.page
        page.get_by_label("Prompt", exact=True).focus()
        page.keyboard.press("Control+A")
        page.keyboard.type("upon a")
        page.keyboard.press("Control+Enter")
        page.get_by_text("Written: 128 tokens.").wait_for()
        text = page.locator("#view-write .token-text")
        text.focus()
        page.keyboard.press("Home")
        for _ in range(8):
            page.keyboard.press("ArrowRight")
        assert text.get_attribute("aria-activedescendant").endswith("-8")
        page.locator("#view-write .token-panel button.bar").first.wait_for()
        page.keyboard.press("2")
        page.locator("#view-write .branch").nth(1).wait_for()
        page.get_by_role("tab", name="Write").focus()
        for name in VIEWS[1:]:
            page.keyboard.press("ArrowRight")
            assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
        assert page.url.endswith("#run")


def test_attention_and_the_lens_show_the_numbers_of_the_server(
    server: Served, address: str
) -> None:
    with browsing(address, address) as visit:
        visit.write("once upon a time", 10, Seed=3)
        tokens = tokens_of(visit)
        found = asked(server, prompt=tokens, top=5, lens=[7])
        view = visit.open("Inside")
        cells = view.get_by_role("gridcell")
        cells.first.wait_for()
        assert cells.count() == 4
        cells.nth(3).click()
        view.locator("[role=option]").nth(7).click()
        view.get_by_text("Layer 2, head 2").first.wait_for()
        own = groundup.inspect(groundup.load(server_folder(server))[0], tokens)
        weights = own.attention(1, 1)[7, :8]
        best = weights.argmax().item()
        row = view.get_by_role("row").filter(has_text=re.compile(rf"^\s*{best + 1}"))
        row.first.wait_for()
        assert shown_percent(100 * weights[best].item()) in row.first.inner_text()
        points = found["lens"][0]["points"]
        said = view.inner_text()
        for point in points:
            assert (
                shown_percent(100 * torch.tensor(point["top"][0]["logprob"]).exp().item()) in said
            )
            assert f"{point['loss']:.2f}" in said or f"{point['loss']:.3f}" in said


def server_folder(server: Served) -> Path:
    (folder,) = re.findall(r"from (\S+); writes", server.log)
    return Path(folder)


def test_step_by_step_walks_through_every_stage(server: Served, address: str) -> None:
    with browsing(address, address) as visit:
        visit.write("once upon a time", 10, Seed=3)
        tokens = tokens_of(visit)
        stages = asked(server, prompt=tokens, stages={"position": 24, "layer": 0, "head": 0})
        sentences = {each["name"]: each for each in stages["stages"]["stages"]}
        view = visit.open("Step by step")
        view.get_by_role("article").get_by_text(sentences["token"]["sentence"]).wait_for()
        page, seen = visit.page, set[str]()
        view.get_by_role("button", name=re.compile("^Next")).focus()
        for _ in range(60):
            said = view.inner_text()
            seen |= {name for name, each in sentences.items() if each["sentence"] in said}
            page.keyboard.press("+")
            said = view.inner_text()
            seen |= {name for name, each in sentences.items() if each["sentence"] in said}
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        for _ in range(20):
            page.keyboard.press("ArrowRight")
            said = view.inner_text()
            seen |= {name for name, each in sentences.items() if each["sentence"] in said}
        assert {"token", "embedding", "stream"} <= seen
        assert {"query", "softmax", "weighted_sum"} <= seen, seen


def test_the_draw_of_a_written_token_is_that_token(address: str) -> None:
    """Of each request with its own settings; of a prompt's token it is said that none was drawn."""
    with browsing(address, address) as visit:
        visit.write("once upon a time", 12, Seed=2, Temperature=1.3)
        write = visit.open("Write")
        write.get_by_label("Temperature", exact=True).fill("0.6")
        write.get_by_role("button", name="Continue").click()
        visit.has(16 + 24)
        write.get_by_text("Written: 12 tokens.").wait_for()
        write.get_by_label("Temperature", exact=True).fill("2")
        text = "".join(visit.text.all_inner_texts()).replace("⏎", "")
        for index in (5, 15, 20, 27, 30, 38):
            visit.open("Write")
            visit.text.nth(index).click()
            view = visit.open("Step by step")
            view.get_by_role("heading", name=f"The way of token {index + 1}").wait_for()
            view.get_by_role("button", name="The draw", exact=True).click()
            card = view.get_by_role("article")
            card.get_by_role("heading", name="The draw").wait_for()
            told = "wasn't drawn in this way" in card.inner_text()
            assert told == (index < 15), index
            if not told:
                name = card.locator(".bar-name").first.inner_text()
                assert name.replace("␣", " ").replace("⏎", "\n") == text[index + 1]


def test_a_prompt_that_cannot_be_read_leaves_the_text(address: str) -> None:
    with browsing(address) as visit:
        visit.write("once upon a time", 12)
        before = visit.text.all_inner_texts()
        visit.page.get_by_label("Prompt", exact=True).fill("once é")
        visit.page.get_by_role("button", name="Write", exact=True).click()
        visit.page.locator("#view-write .status.bad").wait_for()
        assert visit.text.all_inner_texts() == before
        assert visit.page.locator("#view-write .branch").count() == 1
        visit.complaints.clear()  # the browser itself tells of the refusal


def test_a_prompt_may_be_longer_than_the_context(server: Served, address: str) -> None:
    prompt = "once upon a time, there was a model. " * 4
    with browsing(address, address) as visit:
        visit.write(prompt, 10, Seed=4)
        start = window_start(len(prompt), 64)
        expected = server.complete(
            prompt=LETTERS.encode(prompt).tolist()[start:], max_tokens=10, seed=4
        )
        shown = "".join(visit.text.all_inner_texts()).replace("⏎", "")
        assert shown == prompt + expected["choices"][0]["text"]


def test_a_text_that_was_stopped_stays(address: str) -> None:
    with browsing(address, address) as visit:
        write = visit.open("Write")
        visit.page.get_by_label("Prompt", exact=True).fill("once upon")
        write.get_by_label("Length", exact=True).fill("1000")
        write.get_by_role("button", name="Write", exact=True).click()
        visit.text.nth(30).wait_for()
        write.get_by_role("button", name="Stop").click()
        visit.open("Inside")
        visit.open("Write")
        assert visit.text.count() > 30


def test_the_bars_of_sampling_are_what_the_sampler_draws_by(server: Served, address: str) -> None:
    with browsing(address, address) as visit:
        visit.write("once upon a time", 10, Seed=3)
        tokens = tokens_of(visit)
        model, _ = groundup.load(server_folder(server))
        with torch.no_grad():
            logits = model(torch.tensor([tokens]))[0][0, -2:-1]  # after the last but one
        view = visit.open("Sampling")
        view.locator(".chance").first.wait_for()
        settings = {"Temperature": 1.5, "Top-k": 9, "Top-p": 0.8, "Min-p": 0.2}
        for name, value in settings.items():
            view.get_by_label(name, exact=True).fill(str(value))
        view.get_by_text("cut by", exact=False).first.wait_for()
        expected = probabilities_of(logits, *settings.values())[0].sort(descending=True).values
        for index in range(12):
            said = view.locator(".chance").nth(index).inner_text()
            share = expected[index].item()
            assert (shown_percent(100 * share) in said) if share else ("cut by" in said)


def test_a_run_shows_its_curve_and_a_folder_says_that_it_has_none(
    address: str, tmp_path: Path
) -> None:
    write_text(tmp_path)
    trained(*flags({"--steps": 6, "--name": "told", "--eval.every": "2"}), folder=tmp_path)
    with served(tmp_path / "runs" / "told") as server:
        own = f"http://127.0.0.1:{server.port}/"
        with browsing(own, own) as visit:
            view = visit.open("The run")
            view.get_by_role("img").first.wait_for()
            assert "text.txt" in view.inner_text()
            view.get_by_text("Recipe", exact=True).click()
            assert "[model]" in view.inner_text()
    with browsing(address, address) as visit:
        visit.open("The run").get_by_text("This model has no run here").wait_for()


SCREENS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
    "narrow and dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
}


@pytest.mark.parametrize("screen", SCREENS)
def test_everybody_can_use_every_view(address: str, screen: str) -> None:
    """No serious or critical finding of axe, and no sideways scrolling."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with browsing(address, address, bypass_csp=True, **SCREENS[screen]) as visit:
        visit.write("once upon a time", 10, Seed=3)
        for name in VIEWS:
            visit.open(name)
            visit.page.wait_for_timeout(300)
            found = axe.run(visit.page).response["violations"]
            bad = [each for each in found if each["impact"] in ("serious", "critical")]
            told = [(each["id"], each["nodes"][0]["html"][:200]) for each in bad]
            assert not told, (name, told)
            width, inner = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert width <= inner, name


def test_who_wants_less_motion_gets_none(address: str) -> None:
    moving = """[...document.querySelectorAll("*")].filter(each => {
      const style = getComputedStyle(each);
      return [style.transitionDuration, style.animationDuration].some(
        time => time.split(",").some(one => parseFloat(one) > 0.01));
    }).length"""
    with browsing(address, address, reduced_motion="reduce") as visit:
        visit.write("once", 5)
        for name in VIEWS:
            visit.open(name)
            assert visit.page.evaluate(moving) == 0, name


def test_a_key_and_a_prompt_are_kept_for_the_tab(model: Path) -> None:
    with served(model, "--api-key", "secret") as server:
        own = f"http://127.0.0.1:{server.port}/"
        sync_api = pytest.importorskip("playwright.sync_api")
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(own)
            page.get_by_label("Key", exact=True).fill("secret")
            page.get_by_role("button", name="Use this key").click()
            page.get_by_role("heading", name="little").wait_for()
            page.get_by_label("Prompt", exact=True).fill("the cat")
            page.get_by_role("button", name="Write", exact=True).click()
            page.reload()
            page.get_by_role("heading", name="little").wait_for()
            assert page.get_by_label("Key", exact=True).count() == 0
            assert page.get_by_label("Prompt", exact=True).input_value() == "the cat"
            browser.close()


def test_a_hostile_text_is_a_text(tmp_path: Path, cli: Cli) -> None:
    """A file of `look`, opened as one: HTML, marks, emoji families, broken bytes, a long word."""
    from groundup import GPTConfig, learn_tokenizer

    words = learn_tokenizer(["the cat sat on the mat. " * 50], 300)
    torch.manual_seed(0)
    from conftest import model_of
    from groundup.checkpoints import model_folder

    config = GPTConfig(1024, words.vocab_size, 1, 2, 16)
    model_folder.save(tmp_path / "words", model_of("gpt2", config), words)
    text = "</script><img src=x onerror=alert(1)>\u202eright\u200b 👨‍👩‍👧‍👦 é中 " + "x" * 700
    finished = cli("look", "words", "--text", text, "--out", "page.html")
    assert finished.returncode == 0, finished.stderr
    address = (tmp_path / "page.html").as_uri()
    for options in ({}, {"viewport": {"width": 360, "height": 740}}):
        with browsing(address, address, **options) as visit:
            for name in VIEWS:
                visit.open(name)
                visit.page.wait_for_timeout(200)
                width, inner = visit.page.evaluate(
                    "[document.documentElement.scrollWidth, innerWidth]"
                )
                assert width <= inner, name
                assert visit.page.locator("img").count() == 0
            said = "".join(visit.text.all_text_contents())
            assert "<img src=x onerror=alert(1)>" in said
            assert "⟨f0" in said  # bytes that are no character alone


def test_the_page_of_two_models_compares_them(tmp_path: Path, cli: Cli, model: Path) -> None:
    other = small_model(tmp_path / "other", "modern")
    text = "once upon a time, there was a model."
    finished = cli("look", model, other, "--text", text, "--out", "both.html")
    assert finished.returncode == 0, finished.stderr
    address = (tmp_path / "both.html").as_uri()
    page = (tmp_path / "both.html").read_text("utf-8")
    (found,) = re.findall(r'id="recording">(.*?)</script>', page, re.S)
    total = json.loads(found)["comparison"]["total"]
    with browsing(address, address) as visit:
        said = visit.open("Compare").inner_text()
        for name in "ab":
            assert f"{total[f'bits_per_byte_{name}']:.3f}" in said
        visit.page.get_by_label("Model", exact=True).select_option(label="other")
        assert visit.open("Inside").get_by_role("gridcell").count() == 4
