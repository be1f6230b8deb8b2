"""The page, as a browser shows it and as people use it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving import Server, picture, wait_for

from agsr.image.formats.names import IMAGE_FORMATS, SAME

READY = "return document.body.dataset.ready === 'true'"
VALUE = "return document.getElementById('over-bar').value"
CLIP = "return document.getElementById('before').style.clipPath"
TEXT = "return document.getElementById(arguments[0]).textContent"
SHOWN = "return !document.getElementById(arguments[0]).hidden"
WIDTH = "return document.getElementById('before').getBoundingClientRect().width"
DROP_AND_PASTE = """
const held = name => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(arguments[0])], name, {type: 'image/png'}));
  return data;
};
dispatchEvent(new DragEvent('drop', {dataTransfer: held('dropped.png')}));
dispatchEvent(new ClipboardEvent('paste', {clipboardData: held('pasted.png')}));
"""
FETCHED = "return performance.getEntriesByType('resource').map(entry => entry.name)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("spool"))
    yield running
    running.kill()


def _open(browser: Any, server: Server) -> None:
    browser.get(server.address)
    wait_for(lambda: browser.execute_script(READY))


def _choose(browser: Any, *paths: Path) -> None:
    browser.find_element("id", "files").send_keys("\n".join(map(str, paths)))


def _compressed() -> bytes:
    """A picture that other weights suit better than the default ones."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(32, 24))).save(stream, "JPEG", quality=20)
    return stream.getvalue()


def _wait_until_shown(browser: Any, name: str) -> None:
    wait_for(lambda: browser.execute_script(SHOWN, name))


@pytest.mark.browser
@pytest.mark.slow
def test_a_picture_is_chosen_watched_compared_and_downloaded(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    content = picture(48, 40)
    (tmp_path / "cat.png").write_bytes(content)
    (tmp_path / "bad.png").write_text("not an image")
    _open(browser, server)
    assert browser.find_element("id", "choose").is_displayed()
    _choose(browser, tmp_path / "cat.png")

    # Progress moves while the tiles are made.
    shares: set[float] = set()

    def moves() -> bool:
        shares.add(browser.execute_script(VALUE))
        return len(shares) > 2

    wait_for(moves)
    assert max(shares) <= 1
    _wait_until_shown(browser, "download")
    assert "192 × 160" in browser.execute_script(TEXT, "result-facts")
    wait_for(lambda: "cat.png is ready" in browser.execute_script(TEXT, "live"))

    # The slider moves by keys, and so does the view.
    before = browser.execute_script(CLIP)
    split = browser.find_element("id", "split")
    split.send_keys(*[Keys.ARROW_LEFT] * 5)
    assert browser.execute_script(CLIP) != before
    split.send_keys(Keys.HOME)
    hidden = max(map(float, re.findall(r"([\d.]+)px", browser.execute_script(CLIP))))
    assert hidden >= 192  # all of the original
    canvas = browser.find_element("id", "canvas")
    canvas.send_keys("1")
    assert browser.execute_script(TEXT, "zoom") == "100 %"
    canvas.send_keys("+")
    assert browser.execute_script(TEXT, "zoom") == "150 %"
    canvas.send_keys("0")
    assert browser.execute_script(TEXT, "zoom") not in ("100 %", "150 %")

    # The download is the API's answer.
    folder = {"behavior": "allow", "downloadPath": str(tmp_path / "down")}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    browser.find_element("id", "download").click()
    path = tmp_path / "down" / "cat_x4.png"
    wait_for(path.exists)
    answer = server.request("POST", "v1/upscale?name=cat.png&scale=4", content=content)
    assert path.read_bytes() == answer.content

    # Errors are shown in plain words, beside what succeeded.
    _choose(browser, tmp_path / "bad.png")
    _wait_until_shown(browser, "notes")
    assert "can't be read as a picture" in browser.execute_script(TEXT, "notes")
    assert len(browser.find_elements("css selector", ".item")) == 2

    # Nothing comes from elsewhere, and nothing failed.
    names = browser.execute_script(FETCHED)
    assert names
    assert all(re.match(rf"(blob:)?{re.escape(server.address)}", name) for name in names)
    assert browser.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.slow
def test_work_can_be_cancelled_and_repeated_with_other_settings(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "dog.png").write_bytes(picture(96, 96))
    _open(browser, server)
    _choose(browser, tmp_path / "dog.png")
    wait_for(lambda: browser.execute_script(TEXT, "over-text") == "Upscaling")
    browser.find_element("id", "stop").click()
    wait_for(lambda: "Cancelled" in browser.execute_script(TEXT, "notes"))
    wait_for(lambda: server.metric("agsr_queue_running") == 0)
    browser.execute_script("document.querySelector('input[name=size][value=\"2\"]').click()")
    browser.find_element("id", "again").click()
    wait_for(lambda: browser.execute_script(TEXT, "over-text") == "Upscaling")
    browser.find_element("id", "canvas").send_keys("+")
    width = browser.execute_script(WIDTH)
    _wait_until_shown(browser, "download")
    assert browser.execute_script(WIDTH) == pytest.approx(width)  # the view stays
    assert "192 × 192" in browser.execute_script(TEXT, "result-facts")
    assert browser.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_compressed_picture_gets_a_hint_that_can_be_followed_in_the_dark(
    browser: Any, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "web.jpg").write_bytes(_compressed())
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    browser.set_window_size(1280, 800)
    try:
        _open(browser, server)
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", ground))) < 60
        _choose(browser, tmp_path / "web.jpg")
        _wait_until_shown(browser, "download")
        button = browser.find_element("css selector", ".advice button")
        assert "strongly compressed" in browser.execute_script(TEXT, "notes")
        colour = "return getComputedStyle(document.querySelector('.advice')).color"
        assert min(map(int, re.findall(r"\d+", browser.execute_script(colour))[:3])) > 190
        button.click()
        used = "return document.querySelector('input[name=model]:checked').value"
        assert browser.execute_script(used) == "photo"
        wait_for(lambda: "· photo" in browser.execute_script(TEXT, "result-facts"))
        assert browser.find_elements("css selector", ".advice") == []
        # What was done is in view, without scrolling.
        low = "return document.getElementById('items').getBoundingClientRect().bottom - innerHeight"
        assert browser.execute_script(low) < 0
        assert len(browser.find_elements("css selector", ".item")) == 2
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        browser.execute_script("localStorage.clear()")


@pytest.mark.browser
@pytest.mark.slow
def test_pictures_may_be_dropped_and_pasted(browser: Any, server: Server) -> None:
    _open(browser, server)
    browser.execute_script(DROP_AND_PASTE, list(picture()))
    named = "return [...document.querySelectorAll('.item b')].map(name => name.textContent)"
    assert browser.execute_script(named) == ["pasted.png", "dropped.png"]
    done = "return document.querySelectorAll('.item a:not([hidden])').length === 2"
    wait_for(lambda: browser.execute_script(done))
    assert browser.get_log("browser") == []


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_has_nothing_to_scroll_sideways(
    browser: Any, server: Server, tmp_path: Path, width: int
) -> None:
    long = tmp_path / f"{'long-name' * 12}.jpg"
    long.write_bytes(_compressed())
    metrics = {"width": width, "height": 700, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        _open(browser, server)
        wide = "return document.documentElement.scrollWidth"
        assert browser.execute_script(wide) <= width
        _choose(browser, long)
        _wait_until_shown(browser, "download")
        assert browser.find_element("css selector", ".advice button").is_displayed()
        browser.execute_script("document.querySelector('details').open = true")
        assert browser.execute_script(wide) <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_asks_for_the_token(browser: Any, tmp_path: Path) -> None:
    server = Server(tmp_path / "spool", "sesame")
    try:
        browser.get(server.address)
        asked = "return document.getElementById('ask').open"
        wait_for(lambda: browser.execute_script(asked))
        assert not browser.execute_script(SHOWN, "ask-bad")
        browser.find_element("id", "token").send_keys("wrong\n")
        _wait_until_shown(browser, "ask-bad")
        wait_for(lambda: browser.execute_script(asked))
        browser.find_element("id", "token").send_keys("sesame\n")
        wait_for(lambda: browser.execute_script(READY))
        (tmp_path / "a.png").write_bytes(picture())
        _choose(browser, tmp_path / "a.png")
        _wait_until_shown(browser, "download")
    finally:
        server.kill()


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_of_text_have_contrast(scheme: int) -> None:
    style = (files("agsr.serve") / "page" / "app.css").read_text()
    blocks = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    grounds = {
        "ink": "paper card tint soft stage bad-tint",
        "dim": "paper card stage",
        "bad": "card tint bad-tint",
        "accent": "card chosen",
        "accent-ink": "accent",
    }
    pairs = [(text, ground) for text, names in grounds.items() for ground in names.split()]
    for text, ground in pairs:
        light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_every_format_of_pictures_can_be_chosen() -> None:
    page = (files("agsr.serve") / "page" / "index.html").read_text()
    formats = re.search(r'<select id="format">(.*?)</select>', page, re.DOTALL)
    assert formats
    assert set(re.findall(r'value="(\w+)"', formats[1])) == {*IMAGE_FORMATS, SAME}


def test_every_control_has_a_name() -> None:
    """Buttons without words, fields without a label."""
    page = (files("agsr.serve") / "page" / "index.html").read_text()
    control = r"<(?:button|input|select)\b[^>]*>(?:(?!</?(?:button|select)).)*"
    for tag in re.findall(control, page, re.DOTALL):
        words = re.sub(r"<[^>]*>", "", tag).strip()
        labelled = "aria-label" in tag or " hidden" in tag
        identity = re.search(r'id="([\w-]+)"', tag)
        within = identity and re.search(
            rf'<label[^>]*>(?:(?!</label>).)*id="{identity[1]}"|for="{identity[1]}"', page, re.S
        )
        assert words or labelled or within or 'type="radio"' in tag, tag
