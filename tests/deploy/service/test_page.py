"""The page in a real browser: by mouse, by keyboard, on a phone, in dark mode."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright
from service_browser import CHROMIUM, QUIET, served
from service_doubles import coloured, encoded

pytestmark = [pytest.mark.exhaustive, pytest.mark.filterwarnings("ignore")]

NOT_RULED_OUT = "Not ruled out, at an error rate of {}: {}."
SHOTS = os.environ.get("SKINLESION_SCREENSHOTS")  # a folder for screenshots


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    yield from served()


@pytest.fixture(scope="module")
def guarded_address() -> Iterator[str]:
    yield from served("open sesame")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium); the page is not tested")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fresh page; it may write nothing to the console and ask nobody but the service."""
    settings = getattr(request, "param", {"viewport": {"width": 1280, "height": 900}})
    context = browser.new_context(**settings)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((address, "blob:")) or complaints.append(asked.url))
    page.goto(address)
    says(page, "status", "Choose an image.")
    yield page
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{request.node.name}.png", full_page=True)
    refusals = [line for line in complaints if "the server responded with a status of 4" in line]
    assert [line for line in complaints if line not in refusals] == []
    context.close()


def says(page: Any, name: str, text: str | re.Pattern[str]) -> None:
    """Wait until an element says something; by a locator, since the page's policy lets no text be run as script."""
    expect(page.locator(f"#{name}")).to_have_text(text, timeout=30_000)


def answered(page: Any) -> None:
    says(page, "status", re.compile("Analysed in"))


def give(page: Any, image: np.ndarray | bytes, name: str = "my secret name.png") -> None:
    data = image if isinstance(image, bytes) else encoded(image)
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})


def test_an_image_and_facts_give_a_ranked_answer(page: Any) -> None:
    page.fill("#fact-age", "70")
    page.select_option("#fact-sex", "female")
    give(page, coloured(200))
    answered(page)
    assert page.inner_text("#headline") == "melanoma, 73 %, malignant"
    rows = page.locator("#bars li").all_inner_texts()
    assert len(rows) == 7
    assert rows[0].split() == ["melanoma", "(malignant,", "not", "ruled", "out)", "73", "%"]
    assert rows[1].startswith("melanocytic nevus (benign, not ruled out)")
    widths = page.eval_on_selector_all("#bars .bar span", "bars => bars.map(b => b.getBoundingClientRect().width)")
    assert widths[0] / widths[1] == pytest.approx(0.727 / 0.273, rel=0.03), "a bar is as long as its probability"
    assert page.inner_text("#prediction-set") == NOT_RULED_OUT.format("10 %", "melanoma, melanocytic nevus")
    assert "Age 70: +10.0 percentage points for melanoma" in page.inner_text("#effects")
    assert "Sex female: no change" in page.inner_text("#effects")
    assert page.inner_text("#agreement") == (
        "1 of 2 models have melanoma as their top diagnosis. "
        "Their probabilities are not calibrated; the result above is."
    )
    assert page.locator("#members tbody tr").count() == 2
    assert page.inner_text("#warning") == ""
    assert "not a medical device" in page.inner_text("#disclaimer")
    page.fill("#fact-age", "")
    page.press("#fact-age", "Enter")
    says(page, "headline", re.compile("melanoma, 63"))


def test_what_will_stand_there_is_shown_before_an_answer(page: Any) -> None:
    assert page.locator("#empty-bars li").count() == 7
    assert page.locator("#empty-effects .effect").all_inner_texts() == ["Age: –", "Sex: –", "Lesion site: –"]
    assert page.locator("#empty-members tbody tr").all_inner_texts() == ["red\t–\t–", "constant\t–\t–"]
    form, right = (page.locator(each).bounding_box()["height"] for each in ("#form", "#placeholder"))
    assert right > 0.8 * form, "the right half is filled"
    give(page, coloured(254))
    answered(page)
    assert page.is_hidden("#placeholder")
    assert "< 0.1 %" not in page.inner_text("#bars li:last-child"), "none is none"


def test_what_the_vote_decides_and_classes_of_no_known_category(page: Any) -> None:
    """A calibration may put another diagnosis first; a researcher's own classes need not be benign or malignant."""

    def changed(route: Any) -> None:
        answer = route.fetch()
        found = answer.json()
        for each in found.get("diagnoses", []):
            each["category"] = "unknown" if each["code"] == "nv" else each["category"]
        for each in found.get("images", []):
            each["predicted"] = "nv"
        route.fulfill(response=answer, json=found)

    page.route(re.compile("v1/(model|predict)"), changed)
    page.reload()
    says(page, "status", "Choose an image.")
    assert page.locator("#empty-bars li").all_inner_texts()[5].split() == ["melanocytic", "nevus", "–"]
    give(page, coloured(200))
    answered(page)
    assert page.inner_text("#headline").splitlines() == [
        "melanocytic nevus, 37 %",
        "The models' vote decides; after calibration melanoma is more probable (63 %).",
    ]
    assert page.locator("#bars li").all_inner_texts()[1].startswith("melanocytic nevus (not ruled out)")


def test_the_set_at_the_chosen_risk(page: Any) -> None:
    give(page, coloured(40))
    answered(page)
    assert page.inner_text("#prediction-set") == NOT_RULED_OUT.format("10 %", "melanocytic nevus, melanoma")
    page.select_option("#risk", "0.2")
    says(page, "prediction-set", NOT_RULED_OUT.format("20 %", "melanocytic nevus"))


def test_images_unlike_the_training_images_raise_a_warning(page: Any) -> None:
    give(page, coloured(90, 90, 0))
    answered(page)
    assert "is unlike the training images" in page.inner_text("#warning")
    assert page.get_attribute("#warning", "role") == "alert"


def test_the_overlay_and_its_slider(page: Any) -> None:
    image = coloured(40, 40, 40, (60, 100))
    image[40:, 80:] = (250, 40, 40)
    give(page, image)
    answered(page)
    assert page.is_hidden("#map")
    page.select_option("#diagnosis", "mel")
    page.click("#explain")
    page.wait_for_selector("#map:not([hidden])")
    assert "supports melanoma" in page.inner_text("#legend")
    assert page.get_attribute("#map", "alt") == page.evaluate("document.getElementById('legend').textContent")
    stacked = page.evaluate("['image', 'map'].map(id => document.getElementById(id).getBoundingClientRect().toJSON())")
    assert stacked[0] == stacked[1], "the map lies on the image"
    for value in ("0", "100"):
        page.fill("#opacity", value)
        assert page.eval_on_selector("#map", "map => map.style.opacity") == str(int(value) // 100)
    give(page, coloured(10))
    answered(page)
    assert page.is_hidden("#map"), "another image has another map"


def test_errors_are_shown(page: Any) -> None:
    give(page, b"GIF89a", "photo.jpg")
    page.wait_for_selector("#status.error")
    assert "its content is a GIF; expected JPEG" in page.inner_text("#status")
    assert page.is_hidden("#result")
    assert page.is_visible("#placeholder")
    give(page, coloured(200))
    answered(page)
    assert page.is_visible("#result")
    assert page.is_hidden("#placeholder")
    assert page.locator("#status.error").count() == 0


def test_examples_drop_and_paste(page: Any) -> None:
    page.get_by_label("synthetic dermatofibroma").click()
    answered(page)
    assert page.get_attribute("[aria-label='synthetic dermatofibroma']", "aria-pressed") == "true"
    send = """([kind, bytes]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
        const event = kind === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
          : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.getElementById("drop").dispatchEvent(event);
    }"""
    for kind, red, percent in (("drop", 200, "63"), ("paste", 255, "80")):
        page.evaluate(send, [kind, list(encoded(coloured(red)))])
        says(page, "headline", re.compile(f"melanoma, {percent}"))


def test_all_of_it_by_keyboard(page: Any) -> None:
    focus = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focus))
        outline = page.evaluate(
            "getComputedStyle(document.activeElement.id === 'file'"
            " ? document.querySelector('label[for=file] .button') : document.activeElement).outlineStyle"
        )
        assert outline != "none", f"{reached[-1]}: the focus is visible"
        if reached[-1] == "synthetic melanoma":
            page.keyboard.press("Enter")
            answered(page)
    assert reached[0] == "file"
    assert {"fact-age", "fact-sex", "fact-localization", "risk"} <= set(reached)
    page.focus("#fact-age")
    page.keyboard.type("66")
    page.keyboard.press("Enter")
    says(page, "effects", re.compile("Age 66"))
    page.focus("#explain")
    page.keyboard.press("Enter")
    page.wait_for_selector("#map:not([hidden])")
    page.focus("#opacity")
    page.keyboard.press("Home")
    assert page.eval_on_selector("#map", "map => map.style.opacity") == "0"


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DARK = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}


@pytest.mark.parametrize("page", [PHONE, {**PHONE, "color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
def test_on_a_phone_nothing_is_cut_off(page: Any) -> None:
    page.get_by_label("synthetic melanoma").tap()
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    table = page.locator(".scroll")
    assert table.evaluate("box => box.scrollWidth") <= table.evaluate("box => box.clientWidth"), "the members' numbers"
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, input:not(#file)')].filter(e => e.offsetHeight)"
        ".filter(e => e.getBoundingClientRect().height < 40).map(e => e.id)"
    )
    assert small == [], "large enough for a finger"
    top = page.evaluate("document.getElementById('image-panel').getBoundingClientRect().top")
    assert top < 844, "the answer comes into view"


CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetHeight || e.disabled) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.id || e.className || e.tagName, ratio]);
  }
  return poor;
}"""


@pytest.mark.parametrize("page", [{}, DARK], indirect=True, ids=["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Any) -> None:
    """WCAG 2.1 AA: text has a contrast of 4.5 or more with what is behind it."""
    page.fill("#fact-age", "70")
    page.get_by_label("synthetic melanoma").click()
    answered(page)
    page.click("#explain")
    page.wait_for_selector("#map:not([hidden])")
    assert page.evaluate(CONTRAST) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 21, 20)") == page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


def test_every_field_and_image_has_a_name(page: Any) -> None:
    give(page, coloured(200))
    answered(page)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, select')].filter(e => !e.labels.length).map(e => e.id)"
        ".concat([...document.images].filter(e => !e.hasAttribute('alt')).map(e => e.src))"
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName).join(' ')").startswith(
        "H1 H2"
    )


def test_the_files_name_does_not_leave_the_browser(page: Any) -> None:
    sent: list[bytes] = []
    page.on("request", lambda asked: asked.method == "POST" and sent.append(asked.post_data_buffer or b""))
    give(page, coloured(200))
    answered(page)
    assert sent
    assert b"secret" not in b"".join(sent)


def test_a_token_is_asked_for(browser: Any, guarded_address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(guarded_address)
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token")).to_have_value("")  # the service has refused it, and asks again
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token", "open sesame")
    page.keyboard.press("Enter")
    says(page, "status", "Choose an image.")
    assert json.dumps("open sesame") not in page.content()
    context.close()
