"""CELLxGENE Explorer in a real browser: what its page offers of our files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import pytest
from environments import environment
from explorer_server import annotated, launched

from cellscribe.contract import OutputNames
from cellscribe.merge import run_merge

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NAMES = OutputNames.of()

# Run by a Python with selenium: opens the page, looks, and says as JSON what is there.
LOOK = """
import json, sys
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

url, chromium, driver, profile, picture, gene, category, number = sys.argv[1:]
options = webdriver.ChromeOptions()
options.binary_location = chromium
for flag in (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1500,1100", f"--user-data-dir={profile}",
):
    options.add_argument(flag)
browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
wait = WebDriverWait(browser, 90)

def there(test_id):
    return browser.find_elements(By.CSS_SELECTOR, f'[data-testid="{test_id}"]')

def named(prefix):
    found = browser.find_elements(By.CSS_SELECTOR, f'[data-testid^="{prefix}"]')
    return sorted({one.get_attribute("data-testid").removeprefix(prefix) for one in found})

def click(test_id):
    one = wait.until(lambda _: there(test_id))[0]
    browser.execute_script("arguments[0].scrollIntoView(); arguments[0].click()", one)

try:
    browser.get(url)
    # Each column of obs stands at a side with a drop that colours the cells by it.
    wait.until(lambda _: there(f"colorby-{category}") and there(f"colorby-{number}"))
    said = {"columns": named("colorby-")}
    click(f"colorby-{number}")
    click(f"colorby-{category}")
    click(f"{category}:category-expand")
    wait.until(lambda _: named(f"categorical-value-count-{category}-"))
    said["counts"] = {
        value: there(f"categorical-value-count-{category}-{value}")[0].text
        for value in named(f"categorical-value-count-{category}-")
    }
    browser.save_screenshot(picture)
    click("layout-choice")
    # Each map's words come once its cells are counted.
    radios = lambda: [one.text for one in browser.find_elements(By.CSS_SELECTOR, "label:has(input[type=radio])")]
    wait.until(lambda _: radios() and all(radios()))
    said["layouts"] = radios()
    click("layout-choice")
    box = wait.until(lambda _: there("gene-search"))[0]
    browser.execute_script("arguments[0].scrollIntoView()", box)
    box.send_keys(gene)
    click(f"suggest-menu-item-{gene}")
    wait.until(lambda _: there(f"{gene}:gene-label"))
    click(f"colorby-{gene}")
    said["genes"] = sorted(set(named("colorby-")) - set(said["columns"]))
    print("SAID" + json.dumps(said))
except BaseException:
    browser.save_screenshot(picture)
    raise
finally:
    browser.quit()
"""


@pytest.fixture(scope="session")
def selenium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with selenium; skips where there is no browser that it can drive."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip(
            "there is no chromium with its chromedriver here (apt-get install chromium chromium-driver)"
        )
    return environment(tmp_path_factory.mktemp("selenium") / "env", sys.executable, "selenium>=4.20,<5")


def look(cellxgene: Path, selenium: Path, file: Path, folder: Path, gene: str) -> dict[str, Any]:
    """What the page of a file says: `columns` to colour by, `counts` of the final labels, `layouts`, `genes`."""
    with launched(cellxgene, file, folder, "--disable-annotations", "--disable-gene-sets-save") as address:
        asked = [address, str(CHROMIUM), str(DRIVER), folder / "profile", folder / "page.png"]
        done = subprocess.run(
            [selenium, "-c", LOOK, *asked, gene, NAMES.final, NAMES.uncertainty],
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads(done.stdout.split("SAID")[1])
    return said


def check(said: dict[str, Any], file: Path, gene: str) -> None:
    adata = anndata.read_h5ad(file, backed="r")
    assert {NAMES.final, NAMES.predicted, NAMES.uncertainty} <= set(said["columns"])
    counts = adata.obs[NAMES.final].astype(str).value_counts()
    assert {name: int(n) for name, n in said["counts"].items()} == counts.to_dict()
    layouts = " ".join(said["layouts"])
    for key in (NAMES.umap_explorer, NAMES.reference_umap):
        assert key.removeprefix("X_") in layouts
    assert said["genes"] == [gene]


def test_the_page_offers_labels_uncertainty_both_umaps_and_genes_by_symbol(
    cellxgene: Path, selenium: Path, tmp_path: Path
) -> None:
    file = annotated(tmp_path)
    check(look(cellxgene, selenium, file, tmp_path, "SYM7"), file, "SYM7")


def test_the_page_of_merged_samples_offers_the_same_and_the_samples(
    cellxgene: Path, selenium: Path, tmp_path: Path
) -> None:
    for sample in ("s1", "s2"):
        annotated(tmp_path, sample)
    file = tmp_path / "merged.h5ad"
    run_merge(tmp_path, file, tmp_path / "composition.tsv", tmp_path / "sums.h5ad", tmp_path / "page.html")
    said = look(cellxgene, selenium, file, tmp_path, "SYM7")
    check(said, file, "SYM7")
    assert "sample" in said["columns"]
