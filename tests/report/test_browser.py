"""The HTML page in Debian's Chromium: sorting, filtering, theme, phone width, printing."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.report.browse import items_page
from harness.report.build import ReportRequest
from harness.report.serve import LiveReport, make_server
from tests.report.records import Made, build_from, write_runs

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion",
)
RANKING = "table-ranking"
OUTPUT = "return arguments[0].closest('.tools').querySelector('output').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the group `browser`")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield session
    session.quit()


@pytest.fixture
def page(browser: Any, seven_written: Path) -> Any:
    browser.set_window_size(1280, 900)
    browser.get((seven_written / "report.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return browser


@pytest.fixture(scope="module")
def items_written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of items of three variants, one of them untrained."""
    root = tmp_path_factory.mktemp("items")
    ratios = {"base": 0.0, "lora_bf16": -0.8, "qlora_nf4": -0.4}
    runs = [Made(name, log_ratio=ratio, answers=True) for name, ratio in ratios.items()]
    write_runs(root / "runs", runs)
    page = items_page(build_from(root / "runs"))
    assert page is not None
    (root / "items.html").write_text(page)
    return root / "items.html"


@pytest.fixture
def items(browser: Any, items_written: Path) -> Any:
    browser.set_window_size(1280, 900)
    browser.get("about:blank")
    browser.get(f"{items_written.as_uri()}#a=qlora_nf4&b=lora_bf16&score=generations rouge_l")
    return browser


def choose(page: Any, name: str, value: str) -> None:
    page.find_element("css selector", f"#{name} option[value='{value}']").click()


def verdicts(page: Any) -> list[str]:
    """What the cards say, of up to 25 items."""
    return [head.text for head in page.find_elements("css selector", "article .head strong")]


def column(page: Any, number: int) -> list[str]:
    """Visible texts of one column of the ranking."""
    script = """
        const [table, column] = arguments;
        const rows = [...document.getElementById(table).tBodies[0].rows];
        return rows.filter(row => !row.hidden).map(row => row.cells[column].textContent.trim());
    """
    found: list[str] = page.execute_script(script, RANKING, number)
    return found


def heads(page: Any) -> list[Any]:
    found: list[Any] = page.find_elements("css selector", f"#{RANKING} thead th")
    return found


def text_of(page: Any, element: Any) -> str:
    return str(page.execute_script("return arguments[0].textContent", element))


def background(page: Any) -> str:
    return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))


def test_nothing_is_refused_or_fetched(page: Any) -> None:
    assert page.get_log("browser") == []
    fetched = page.execute_script("return performance.getEntriesByType('resource').length")
    assert fetched == 0


def test_a_click_sorts_and_a_second_click_turns_round(page: Any) -> None:
    perplexity = heads(page)[1]
    best_first = column(page, 0)
    perplexity.find_element("tag name", "button").click()
    assert perplexity.get_attribute("aria-sort") == "ascending"
    assert column(page, 0) == best_first
    perplexity.find_element("tag name", "button").click()
    assert perplexity.get_attribute("aria-sort") == "descending"
    *scored, failed = column(page, 0)
    assert scored == best_first[:-1][::-1]
    assert failed == "full_finetune", "what has no value stays last"


def test_names_sort_as_words_and_sizes_by_bytes(page: Any) -> None:
    titles = [head.text.split(" ↕")[0].strip() for head in heads(page)]
    heads(page)[0].find_element("tag name", "button").click()
    assert column(page, 0) == sorted(column(page, 0))
    place = titles.index("peak memory")
    heads(page)[place].find_element("tag name", "button").click()
    sizes = [text for text in column(page, place) if text != "–"]
    assert sizes[0].split()[1] == "MiB"
    assert sizes[-1].split()[1] == "GiB"


def test_sorting_works_from_the_keyboard(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    heads(page)[0].find_element("tag name", "button").send_keys(Keys.ENTER)
    assert heads(page)[0].get_attribute("aria-sort") == "ascending"


def test_filtering_by_several_words(page: Any) -> None:
    field = page.find_element("css selector", f'input[data-table="{RANKING}"]')
    field.send_keys("nf4 worse")
    assert set(column(page, 0)) == {"base_nf4", "base_nf4_dq", "qlora_nf4", "qlora_nf4_dq"}
    assert page.execute_script(OUTPUT, field) == "4 of 8 rows"
    field.clear()
    field.send_keys("lora")
    assert column(page, 0) == ["lora_bf16"], "qlora is another word"
    field.clear()
    field.send_keys("no such row")
    assert column(page, 0) == []
    assert page.execute_script(OUTPUT, field).startswith("Nothing matches")


def test_chips_filter_by_method_bits_and_rank(page: Any) -> None:
    for tag in ("method=lora", "bits=4"):
        page.find_element("css selector", f'.chip[data-tag="{tag}"]').click()
    assert set(column(page, 0)) == {"qlora_nf4", "qlora_nf4_dq", "qlora_fp4"}
    page.find_element("css selector", '.chip[data-tag="bits=16"]').click()
    assert "lora_bf16" in column(page, 0), "values of one kind are alternatives"


def test_the_ranking_fits_and_its_columns_can_be_chosen(page: Any) -> None:
    table = page.find_element("id", RANKING)
    box = page.execute_script("return arguments[0].parentElement.clientWidth", table)
    assert table.size["width"] <= box
    throughput = next(head for head in heads(page) if "tokens/s" in text_of(page, head))
    assert not throughput.is_displayed()
    page.find_element("css selector", "#ranking .columns summary").click()
    label = "//section[@id='ranking']//label[contains(., 'tokens/s')]/input"
    page.find_element("xpath", label).click()
    assert throughput.is_displayed()
    throughput.find_element("tag name", "button").click()
    assert throughput.get_attribute("aria-sort") == "descending", "more is better"


def test_a_row_opens_with_its_command(page: Any) -> None:
    row = page.find_element("css selector", f"#{RANKING} tbody tr:nth-child(2)")
    row.find_element("css selector", "button.open").click()
    opened = page.find_element("css selector", f"#{RANKING} tr.opened")
    assert "python -m harness run" in opened.text
    assert opened.find_element("css selector", "button.copy").is_displayed()
    heads(page)[1].find_element("tag name", "button").click()
    heads(page)[1].find_element("tag name", "button").click()
    above = "return arguments[0].previousElementSibling === arguments[1]"
    assert page.execute_script(above, opened, row), "what is opened moves with its row"
    row.find_element("css selector", "button.open").click()
    assert page.find_elements("css selector", "tr.opened") == []


def test_an_opened_row_draws_its_curve(page: Any) -> None:
    row = page.find_element("css selector", f"#{RANKING} tbody tr:nth-child(3)")
    row.find_element("css selector", "button.open").click()
    opened = page.find_element("css selector", f"#{RANKING} tr.opened")
    curves = opened.find_elements("css selector", "svg.spark polyline")
    assert [curve.get_attribute("class") for curve in curves] == ["faint", None, None, None]
    assert opened.find_element("css selector", "svg.spark").size["height"] > 60
    assert "a curve for each seed" in opened.text


def choose_axis(page: Any, side: str, title: str) -> None:
    option = f"//section[@id='tradeoff']//select[@name='{side}']/option[starts-with(., '{title}')]"
    page.find_element("xpath", option).click()


def test_the_axes_of_the_trade_off_are_chosen(page: Any) -> None:
    figure = page.find_element("css selector", "figure.choose")
    given = figure.find_element("css selector", ".wide")
    assert given.is_displayed()
    choose_axis(page, "x", "weights")
    choose_axis(page, "y", "oasst_choice")
    assert not given.is_displayed()
    caption = figure.find_element("tag name", "figcaption")
    assert caption.text == "oasst_choice acc against weights, MiB"
    points = figure.find_elements("css selector", '.plane .v[data-v="qlora_nf4"]')
    assert len(points) == 2, "the point and its name"
    assert "weights 182 MiB" in str(points[0].get_attribute("data-say"))
    names = figure.find_elements("css selector", ".plane .v > text")
    tops = sorted(name.rect["y"] for name in names)
    assert len(tops) == 7
    assert all(two - one > 11 for one, two in itertools.pairwise(tops)), "names do not overlap"
    choose_axis(page, "x", "peak memory")
    choose_axis(page, "y", "perplexity")
    assert given.is_displayed()


def test_chosen_axes_answer_to_the_legend_and_the_pointer(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    choose_axis(page, "x", "weights")
    point = page.find_element("css selector", '.plane .v[data-v="base"] path')
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(page).move_to_element(point).perform()
    assert page.find_element("id", "tip").text.startswith("base: perplexity 7.")
    page.find_element("xpath", "//div[@class='legend']/button[.='base']").click()
    off = page.find_elements("css selector", '.plane .v.off[data-v="base"]')
    assert len(off) == 2
    choose_axis(page, "x", "predicted")
    off = page.find_elements("css selector", '.plane .v.off[data-v="base"]')
    assert len(off) == 2, "in what is drawn anew, too"


def test_a_phone_shows_the_ranking_as_cards(page: Any) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    row = page.find_element("css selector", f"#{RANKING} tbody tr")
    tops = {cell.location["y"] for cell in row.find_elements("css selector", "td:not([hidden])")}
    page.find_element("css selector", ".columns summary").click()
    box = page.find_element("css selector", ".columns > div").rect
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert len(tops) > 5, "one line a value"
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390, "the choice of columns stays on the screen"


def test_a_variant_lights_up_in_all_figures_and_tells_its_values(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    point = page.find_element("css selector", '#tradeoff .wide .v[data-v="base"] use')
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(page).move_to_element(point).perform()
    tip = page.find_element("id", "tip").text
    assert tip.startswith("base: perplexity 7.")
    assert "GiB" in tip
    lit = "return [...new Set([...document.querySelectorAll('.v.on')].map(p => p.dataset.v))]"
    assert page.execute_script(lit) == ["base"]
    figures = "return new Set([...document.querySelectorAll('.v.on')].map(p => p.closest('svg')))"
    assert page.execute_script(f"{figures}.size") > 4


def test_the_legend_switches_a_variant_off_in_all_figures(page: Any) -> None:
    button = page.find_element("xpath", "//div[@class='legend']/button[.='qlora_fp4']")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    off = "return [...document.querySelectorAll('.v')].filter(p => p.dataset.v === 'qlora_fp4')"
    assert page.execute_script(f"{off}.every(p => p.classList.contains('off'))")
    button.click()
    assert not page.execute_script(f"{off}.some(p => p.classList.contains('off'))")


def test_a_phone_gets_figures_of_its_own_width(page: Any) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    height = """
        const texts = [...document.querySelectorAll('#tradeoff .narrow text')];
        return Math.min(...texts.map(text => text.getBoundingClientRect().height));
    """
    least = page.execute_script(height)
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert least >= 9, "letters that a person can read"


def test_the_theme_goes_round_and_is_remembered(page: Any) -> None:
    button = page.find_element("id", "theme")
    light = background(page)
    assert button.text == "Theme: auto"
    button.click()
    assert background(page) == light == "rgb(255, 255, 255)"
    button.click()
    assert button.text == "Theme: dark"
    assert background(page) == "rgb(13, 17, 23)"
    page.refresh()
    assert page.find_element("id", "theme").text == "Theme: dark"
    assert background(page) == "rgb(13, 17, 23)"
    paper = """return getComputedStyle(document.querySelector('figure [style*="--paper"]')).fill"""
    assert page.execute_script(paper) == "rgb(13, 17, 23)", "figures follow"


def test_dark_where_the_system_is_dark(page: Any) -> None:
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert background(page) == "rgb(13, 17, 23)"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(page: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_all_tables_fit_on_paper(page: Any) -> None:
    paper = {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4, 1 cm off
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    page.execute_script("dispatchEvent(new Event('beforeprint'))")  # opens every fold
    wide = page.execute_script("return document.documentElement.scrollWidth")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert wide <= 718


def test_printing_opens_what_is_folded(page: Any) -> None:
    printed = page.execute_cdp_cmd("Page.printToPDF", {})
    assert len(printed["data"]) > 10_000
    closed = page.execute_script(
        "return [...document.querySelectorAll('details')].filter(d => !d.open).length"
    )
    assert closed == 0


def test_a_served_page_renews_itself_and_keeps_what_was_chosen(
    browser: Any, tmp_path: Path
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    names = ("base", "base_nf4", "lora_bf16_r4", "lora_bf16_r8")
    write_runs(tmp_path, [Made(name) for name in names])
    server = make_server(LiveReport(tmp_path, ReportRequest(suite="quick"), rest=0), 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        browser.set_window_size(1280, 900)
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        field = browser.find_element("css selector", f'input[data-table="{RANKING}"]')
        field.send_keys("lora_bf16_r8")
        heads(browser)[0].find_element("tag name", "button").click()
        row = browser.find_element("css selector", f"#{RANKING} tbody tr:not([hidden])")
        row.find_element("css selector", "button.open").click()
        write_runs(tmp_path, [Made("qlora_nf4", log_ratio=-0.1)])
        renewed = (  # also by what the page's own code shows again at its end
            "return document.readyState === 'complete' && "
            f"document.getElementById('{RANKING}').textContent.includes('qlora_nf4')"
        )
        WebDriverWait(browser, 600).until(lambda page: page.execute_script(renewed))
        assert column(browser, 0)[0] == "lora_bf16_r8"
        assert heads(browser)[0].get_attribute("aria-sort") == "ascending"
        assert len(browser.find_elements("css selector", "tr.opened")) == 1
        assert browser.get_log("browser") == []
    finally:
        browser.get("about:blank")
        server.shutdown()
        server.server_close()
        thread.join()


def test_where_a_beats_b(items: Any) -> None:
    told = items.find_element("id", "told").text
    assert told.startswith("qlora_nf4 (A) is better on ")
    choose(items, "which", "a")
    assert set(verdicts(items)) == {"A is better"}
    first = items.find_element("css selector", "article .head span").text
    assert "A − B +0." in first
    items.find_element("id", "swap").click()
    assert items.find_element("id", "told").text.startswith("lora_bf16 (A) is better on ")
    choose(items, "which", "b")
    choose(items, "sort", "b")
    assert set(verdicts(items)) == {"B is better"}
    assert items.find_element("css selector", "article .head span").text.replace("−", "-") != first
    assert items.get_log("browser") == []


def test_numbers_of_items_are_told_with_their_digits(items: Any) -> None:
    """Thousands are separated, and what is subtracted keeps its digits."""
    tell = "return [47330.4, 8.234567, 0.00001234].map((v) => number(v, {exp: false}))"
    assert items.execute_script(tell) == ["47,330", "8.235", "0.00001234"]


def test_words_that_differ_are_marked(items: Any) -> None:
    def marks() -> list[str]:
        found = items.find_elements("css selector", "article:first-of-type mark")
        return [mark.text for mark in found]

    assert marks() == ["qlora_nf4.", "lora_bf16."]
    choose(items, "mark", "reference")
    assert marks() == ["So", "says", "qlora_nf4.", "So", "says", "lora_bf16."]
    choose(items, "mark", "none")
    assert marks() == []


def test_items_are_searched_in_all_their_texts(items: Any) -> None:
    items.find_element("id", "find").send_keys("egg number 17")
    (article,) = items.find_elements("css selector", "article")
    assert "Put egg 17 into boiling water, wait." in article.text
    items.find_element("id", "find").send_keys(" nowhere")
    assert items.find_element("id", "list").text == "Nothing matches."
    items.find_element("id", "find").clear()


def test_more_items_are_shown_when_asked_for(items: Any) -> None:
    assert len(verdicts(items)) == 25
    items.find_element("id", "more").click()
    assert len(verdicts(items)) == 50


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_items_never_scrolls_sideways(items: Any, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    items.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wide = items.execute_script("return document.documentElement.scrollWidth")
    items.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_every_row_of_the_ranking_is_shown_and_one_is_marked(page: Any) -> None:
    rows = page.find_elements("css selector", f"#{RANKING} tbody tr")
    assert len(rows) == 8
    assert all(row.is_displayed() for row in rows)
    marked = [row for row in rows if row.get_attribute("class") == "recommended"]
    assert [row.text.split()[0] for row in marked] == ["lora_bf16"]
    cell = marked[0].find_element("css selector", "th")
    assert "inset" in cell.value_of_css_property("box-shadow")
