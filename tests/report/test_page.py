"""The page in a browser: it opens without an error, asks for nothing, sorts, filters and compares."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from scripts.report.__main__ import main

from .conftest import SHAPE, add_error_map

HOSTILE = """</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"'> {{ 7*7 }} {% raw %}"""
NAMES = ("good", "worst", "doubtful", "plain")


@pytest.fixture
def page(registered, tmp_path):
    out = tmp_path / "out"
    registered(out / "good", "good", 0.02)
    registered(out / "worst", "failed", 0.99, ["The images do not match.", HOSTILE], warnings=[HOSTILE])
    registered(out / "doubtful", "doubtful", 0.4, ["It folds."])
    registered(out / "plain")
    main([str(out)])
    return out / "report.html"


def names(browser):
    rows = browser.find_elements("css selector", "#table tbody tr")
    return [row.find_element("css selector", ".open").text for row in rows if row.is_displayed()]


def test_the_table_sorts_with_the_worst_first_and_filters(page, visit):
    browser = visit(page)
    assert browser.title == "Registration report"
    assert names(browser) == ["worst", "doubtful", "plain", "good"]
    heads = browser.find_elements("css selector", "#table th button")
    assert [head.text for head in heads][:3] == ["pair", "verdict", "P(failure)"]
    heads[0].click()
    assert names(browser) == ["doubtful", "good", "plain", "worst"]
    heads[0].click()
    assert names(browser) == ["worst", "plain", "good", "doubtful"]
    heads[2].click()  # what is not known comes last, both ways
    assert names(browser) == ["good", "doubtful", "worst", "plain"]
    heads[2].click()
    assert names(browser) == ["worst", "doubtful", "good", "plain"]
    assert heads[2].find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    field = browser.find_element("id", "filter")
    field.send_keys("FOLDS it")
    assert names(browser) == ["doubtful"]
    assert browser.find_element("id", "shown").text == "1 of 4"
    field.clear()
    field.send_keys(" ")
    for verdict in ("good", "failed"):
        browser.find_element("css selector", f".chip[data-verdict={verdict}]").click()
    assert names(browser) == ["worst", "good"]


def test_a_pair_opens_and_its_images_are_compared(page, visit):
    browser = visit(page)
    webdriver = pytest.importorskip("selenium.webdriver")
    browser.find_elements("css selector", ".open")[1].click()
    dialog = browser.find_element("id", "detail")
    assert dialog.is_displayed()
    pair = dialog.find_element("css selector", "article")
    assert pair.find_element("css selector", "h2").text.startswith("doubtful")
    stage = pair.find_element("css selector", ".stage.images")
    quarter = round(stage.size["width"] / 4)
    actions = webdriver.ActionChains(browser).move_to_element_with_offset(stage, quarter, 0)
    actions.click_and_hold().move_by_offset(-2 * quarter, 0).release().perform()
    slider = pair.find_element("css selector", "input[type=range]")
    there = float(slider.get_attribute("value"))
    assert abs(there - 25) <= 1
    slider.send_keys("\ue014")  # the right arrow
    assert float(slider.get_attribute("value")) == there + 1
    other = pair.find_element("css selector", ".other[data-layer=warped]")
    assert other.value_of_css_property("clip-path") == f"inset(0px 0px 0px {there + 1:g}%)"
    before = pair.find_element("css selector", ".other[data-layer=moving]")
    assert (other.is_displayed(), before.is_displayed()) == (True, False)
    pair.find_element("css selector", "input[value=moving]").click()
    assert (other.is_displayed(), before.is_displayed()) == (False, True)
    pair.find_element("css selector", "input[value=flicker]").click()
    seen = set()
    for _ in range(30):
        seen.add(before.value_of_css_property("visibility"))
        time.sleep(0.05)
    assert seen == {"visible", "hidden"}
    pair.find_element("css selector", "input[value=difference]").click()
    assert before.value_of_css_property("mix-blend-mode") == "difference"
    outline = pair.find_element("css selector", ".outline[data-layer=label_fixed]")
    assert outline.is_displayed()
    pair.find_element("css selector", "input[data-layer=label_fixed]").click()
    assert not outline.is_displayed()


def test_pairs_follow_each_other_and_the_keyboard_is_enough(page, visit):
    browser = visit(page, "#pair-2")  # an address opens its pair
    dialog = browser.find_element("id", "detail")
    title = lambda: dialog.find_element("css selector", "h2").text.split()[0]  # noqa: E731
    assert title() == "plain"
    browser.switch_to.active_element.send_keys("n")
    assert title() == "good"
    browser.switch_to.active_element.send_keys("p")
    browser.switch_to.active_element.send_keys("p")
    assert title() == "doubtful"
    assert dialog.find_element("id", "place").text == "2 of 4"
    browser.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not dialog.is_displayed()
    assert browser.switch_to.active_element.text == "doubtful"
    browser.switch_to.active_element.send_keys("\ue007")  # Enter
    assert title() == "doubtful"


def test_hostile_texts_are_texts(page, visit):
    browser = visit(page)
    browser.find_elements("css selector", ".open")[0].click()
    texts = [item.text for item in browser.find_elements("css selector", "dialog li")]
    assert texts == ["The images do not match.", HOSTILE, f"Warning: {HOSTILE}"]
    assert browser.execute_script("return window.hacked") is None
    assert len(browser.find_elements("css selector", "script")) == 1


def test_hostile_names_are_texts(registered, tmp_path, visit):
    name = """"><b onclick='x'> <script>window.hacked=1;"""
    registered(tmp_path / "out" / name, "good", 0.1)
    (tmp_path / "pairs.json").write_text('[{"name": "<u>none", "fixed": "f.nii", "moving": "m.nii"}]')
    main([str(tmp_path / "out"), "--datalist", str(tmp_path / "pairs.json")])
    browser = visit(tmp_path / "out" / "report.html")
    assert names(browser) == [name]
    assert browser.find_element("css selector", ".failures tbody th").text == "<u>none"
    assert browser.execute_script("return window.hacked") is None


def test_a_single_pair_is_shown_at_once(registered, tmp_path, visit):
    registered(tmp_path / "one", "good", 0.1)
    main([str(tmp_path / "one"), "--output", str(tmp_path / "page" / "one.html")])
    browser = visit(tmp_path / "page" / "one.html")
    assert browser.title == "Registration report: one"
    assert not browser.find_elements("id", "table")
    pictures = browser.find_elements("css selector", ".stage img")
    assert len(pictures) == 3 * (3 + 2 + 2)  # three planes: images, outlines, grid and determinant
    widths = browser.execute_script("return arguments[0].map(image => image.naturalWidth)", pictures)
    assert min(widths) > 0


@pytest.mark.slow
def test_whole_volumes_are_shown_and_colour_the_canvas(registered, tmp_path, visit):
    from selenium.webdriver.support.ui import Select, WebDriverWait

    registered(tmp_path / "out" / "a")
    registered(tmp_path / "out" / "b")
    add_error_map(tmp_path / "out" / "a", np.ones(SHAPE))
    main([str(tmp_path / "out"), "--viewer", "true"])
    browser = visit(tmp_path / "out" / "report.html")
    for number, layers in ((0, ["warped", "jacobian", "error", "label_fixed", "label_warped"]), (1, ["warped"])):
        browser.find_elements("css selector", ".open")[number].click()
        section = browser.find_element("css selector", "dialog .viewer")
        section.find_element("css selector", ".load").click()
        wait = WebDriverWait(browser, 60)
        wait.until(lambda _, s=section: s.get_attribute("data-shown") == "fixed")
        for layer in layers:
            Select(section.find_element("name", "layer")).select_by_value(layer)
            wait.until(lambda _, s=section, text=f"fixed {layer}": s.get_attribute("data-shown") == text)
        picture = Image.open(io.BytesIO(section.find_element("tag name", "canvas").screenshot_as_png)).convert("RGB")
        assert len(set(picture.getdata())) > 50  # not one colour
        assert section.find_element("css selector", ".state").text == ""
        browser.find_element("id", "close").click()
