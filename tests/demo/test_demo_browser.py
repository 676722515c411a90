"""The page in a real browser. Needs Chromium: Debian's, or `playwright install chromium`."""

import re
import shutil

import pytest
from PIL import Image

pytest.importorskip("gradio", minversion="6", reason="the extra `demo` is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.slow
expect = sync_api.expect
expect.set_options(timeout=30_000)  # a machine that runs other tests beside
SIZES = {"wide": {"width": 1200, "height": 900}, "narrow": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser():
    own = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as player:
        try:
            chromium = player.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium starts here: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page; at the end nothing but this machine has been asked and nothing has failed."""
    context = browser.new_context(accept_downloads=True)
    hosts, failures = set(), []

    def open_page(size="wide"):
        tab = context.new_page()
        tab.set_viewport_size(SIZES[size])
        tab.on(
            "request", lambda request: hosts.add(re.sub(r"^\w+:(//[^/]*)?.*", r"\1", request.url))
        )
        tab.on("pageerror", lambda error: failures.append(str(error)))
        tab.goto(address)
        expect(tab.locator("#paint")).to_be_visible(timeout=90_000)
        return tab

    yield open_page
    context.close()
    assert hosts <= {"//" + address.split("/")[2], ""} and failures == []


def painted(tab, count=1):
    expect(tab.locator("#way")).to_contain_text("network evaluations", timeout=30_000)
    expect(tab.locator("#shelf .thumbnail-item")).to_have_count(count, timeout=30_000)


def test_a_picture_is_painted_shown_along_its_way_and_kept(visit, tmp_path):
    tab = visit()
    tab.locator("#paint").click()
    painted(tab)
    assert tab.locator("#way img").count() == 8
    tab.locator("#luck").click()
    painted(tab, 2)
    with tab.expect_download() as download:
        tab.locator("#painted").get_by_role("button", name="Download").click()
    download.value.save_as(tmp_path / "p.png")
    told = Image.open(tmp_path / "p.png")
    assert told.size == (96, 96) and told.text["prompt"] and int(told.text["seed"]) > 0


def test_another_sampler_can_be_chosen(visit):
    tab = visit()
    tab.locator("#more button").first.click()
    tab.get_by_label("Sampler").click()
    tab.get_by_role("option", name="heun", exact=True).click()
    tab.get_by_role("spinbutton", name=re.compile("Guided evaluations")).fill("4")
    tab.locator("#paint").click()
    expect(tab.locator("#way")).to_contain_text("8 network evaluations", timeout=30_000)


def test_two_samplers_are_compared(visit):
    tab = visit()
    tab.get_by_role("tab", name="Compare").click()
    tab.locator("#compare").click()
    expect(tab.locator("#compared")).to_contain_text("grey levels", timeout=30_000)
    expect(tab.locator("#left img, #right img")).to_have_count(2)


def test_a_question_is_answered_about_a_sent_picture(visit, tmp_path):
    Image.radial_gradient("L").save(tmp_path / "p.png")
    tab = visit()
    tab.get_by_role("tab", name="Ask").click()
    tab.locator("#asked input[type=file]").set_input_files(tmp_path / "p.png")
    expect(tab.locator("#asked img")).to_be_visible()
    tab.locator("#ask").click()
    expect(tab.locator("#talk .bot")).not_to_have_text(re.compile(r"^\s*(\.\.\.)?\s*$"))


def test_a_question_is_answered_about_what_was_painted(visit):
    tab = visit()
    tab.get_by_role("tab", name="Ask").click()
    tab.locator("#last").click()
    expect(tab.get_by_text("There is no generated image yet")).to_be_visible()
    tab.get_by_role("tab", name="Paint").click()
    tab.locator("#paint").click()
    painted(tab)
    tab.get_by_role("tab", name="Ask").click()
    tab.locator("#last").click()
    expect(tab.locator("#asked img")).to_be_visible()
    tab.locator("#ask").click()
    expect(tab.locator("#talk .bot")).not_to_have_text(re.compile(r"^\s*(\.\.\.)?\s*$"))


def test_a_bad_upload_gets_a_sentence(visit, tmp_path):
    (tmp_path / "p.png").write_bytes(b"no image")
    tab = visit()
    tab.get_by_role("tab", name="Ask").click()
    tab.locator("#asked input[type=file]").set_input_files(tmp_path / "p.png")
    tab.wait_for_timeout(500)
    tab.locator("#ask").click()
    expect(tab.get_by_text("This is not a complete image")).to_be_visible()


@pytest.mark.parametrize("name", ["Paint", "Compare", "Ask", "Edit"])
def test_nothing_sticks_out_of_a_narrow_window(name, visit):
    tab = visit("narrow")
    tab.get_by_role("tab", name=name).click()
    tab.wait_for_timeout(300)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for box in tab.locator("button:visible, textarea:visible, input:visible").all():
        place = box.bounding_box()
        assert place and place["x"] >= 0 and place["x"] + place["width"] <= 390


@pytest.mark.parametrize("size", SIZES)
def test_every_tab_is_in_reach_and_a_trajectory_ends_in_a_gif(visit, size):
    tab = visit(size)
    names = ("Paint", "Compare", "Trajectory", "Ask", "Edit")
    for name in names:
        expect(tab.get_by_role("tab", name=name, exact=True)).to_be_visible()
    tab.get_by_role("tab", name="Trajectory", exact=True).click()
    tab.locator("#walk").click()
    expect(tab.locator("#track .moving")).to_be_visible(timeout=60_000)
    expect(tab.get_by_role("link", name="Save the GIF")).to_be_visible()
    assert tab.locator("#track figure").count() == 12
    assert tab.evaluate("document.body.scrollWidth <= window.innerWidth + 1")
