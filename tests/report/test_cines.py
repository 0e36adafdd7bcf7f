"""Cines in a report, alone and beside pairs."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from scripts.heart import read_cine, track
from scripts.heart.results import write_cine_results
from scripts.report.__main__ import main
from scripts.report.cines import draw_cine, draw_cines
from scripts.report.entries import Entry, find_entries, worst_first
from scripts.report.tables import tables_of
from scripts.support.files import read_record

from ..conftest import blobs
from ..heart.test_heart import AFFINE, COUNT, NAMES, SHAPE, heart_label, motion


@pytest.fixture
def tracked_cine(save):
    """Write the results of a shrinking heart to a folder."""

    def write(folder, verdict="good", reasons=(), agreement=0.9):
        frames = np.repeat(blobs(SHAPE)[..., None], COUNT, -1)
        files = save("cine.nii.gz", frames, AFFINE), save("label.nii.gz", heart_label(), AFFINE)
        found = track(read_cine(*files, 0, NAMES), lambda cine, reference: motion(shrink=0.2))
        write_cine_results(found, found.strain, folder, {"seconds": {"track": 1.5}})
        path = folder / "metrics.json"
        record = json.loads(path.read_text())
        assert record["verdict"]["verdict"] == "failed"  # the label does not fit an image of blobs
        evidence = {**record["verdict"]["evidence"], "agreement": agreement}
        record["verdict"] = {"verdict": verdict, "reasons": list(reasons), "score": None, "evidence": evidence}
        path.write_text(json.dumps(record))

    return write


def picture(address):
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_the_pictures_and_tables_of_a_cine(tracked_cine, tmp_path):
    tracked_cine(tmp_path / "a")
    entry = Entry("a", tmp_path / "a", read_record(tmp_path / "a" / "metrics.json"))
    drawn = draw_cine(entry)
    assert list(drawn.layers) == ["movie", "overview", "curves", "bullseye"]
    assert drawn.notes == []
    with Image.open(tmp_path / "a" / "movie.gif") as gif:
        movie = picture(drawn.layers["movie"])
        assert (movie.n_frames, movie.size) == (COUNT, gif.size)
    assert max(picture(drawn.thumbnail).size) == 72
    tables = {table.title: table for table in tables_of(entry)}
    assert list(tables) == ["Volumes", "Peak strain, %", "Evidence of the verdict", "Time", "Further measures"]
    assert sorted(tables["Volumes"].columns) == ["LV", "RV"]
    column = tables["Volumes"].columns.index("LV")
    (fraction,) = [values[column] for name, values in tables["Volumes"].lines if name == "ejection fraction, %"]
    assert float(fraction) == pytest.approx(36, abs=0.01)
    assert [name for name, _ in tables["Peak strain, %"].lines][:5] == ["global", "basal", "mid", "apical", "1"]
    assert float(dict(tables["Peak strain, %"].lines)["global"][0]) == pytest.approx(-20, abs=0.01)
    (tmp_path / "a" / "movie.gif").write_bytes(b"GIF89a")
    (tmp_path / "a" / "bullseye.png").unlink()
    drawn = draw_cine(entry)
    assert list(drawn.layers) == ["overview", "curves"]
    assert drawn.thumbnail == ""
    assert drawn.notes[0].startswith("movie.gif cannot be read")


def test_movies_stop_where_the_page_is_large(tracked_cine, tmp_path, monkeypatch):
    for name in "abc":
        tracked_cine(tmp_path / name)
    entries = find_entries([tmp_path]).entries
    size = len(draw_cine(entries[0]).layers["movie"])
    monkeypatch.setattr("scripts.report.cines.MOST_BYTES", 2 * size - 1)
    drawn = draw_cines(entries)
    assert ["movie" in drawn[name].layers for name in "abc"] == [True, True, False]
    assert "the page would become too large" in drawn["c"].notes[0]
    assert drawn["c"].thumbnail


def test_cines_and_pairs_in_one_report(tracked_cine, registered, tmp_path, capsys):
    out = tmp_path / "out"
    tracked_cine(out / "fine")
    tracked_cine(out / "shuffled", "failed", ["the heart moves to and fro"], 0.6)
    tracked_cine(out / "noisy", "failed", ["a frame is less alike"], 0.1)
    registered(out / "pair", "doubtful", 0.3)
    cines = [{"name": name, "cine": "c.nii"} for name in ("fine", "lost")]
    (tmp_path / "list.json").write_text(json.dumps(cines))
    main([str(out), "--datalist", str(tmp_path / "list.json")])
    assert capsys.readouterr().out.splitlines()[:2] == ["2 failed, 1 doubtful, 1 good", "not registered: 1"]
    entries = sorted(find_entries([out]).entries, key=worst_first)
    assert [entry.name for entry in entries] == ["noisy", "shuffled", "pair", "fine"]
    text = (out / "report.html").read_text("utf-8")
    assert "1 pair registered, 3 cines tracked, 1 not" in text
    assert re.search(r"<th scope=\"row\">lost</th><td>There is no result.</td>", text)
    for title in ("EF", "GCS", "Dice"):
        assert f">{title} " in text or f">{title}<" in text
    assert text.count('class="planes cine"') == 3


def test_a_cine_opens_in_a_browser(tracked_cine, registered, tmp_path, visit):
    out = tmp_path / "out"
    tracked_cine(out / "fine")
    tracked_cine(out / "worst", "failed", ["the heart moves to and fro"])
    registered(out / "pair", "doubtful", 0.3)
    main([str(out)])
    browser = visit(out / "report.html")
    rows = browser.find_elements("css selector", "#table tbody tr")
    assert [row.find_element("css selector", ".open").text for row in rows] == ["worst", "pair", "fine"]
    rows[0].find_element("css selector", ".open").click()
    body = browser.find_element("id", "body")
    pictures = body.find_elements("css selector", ".cine img")
    assert len(pictures) == 4
    loaded = "return [...document.querySelectorAll('#body .cine img')].every(i => i.complete && i.naturalWidth > 0)"
    assert browser.execute_async_script(
        f"const done = arguments[0]; setTimeout(() => done((() => {{ {loaded} }})()), 500)"
    )
    assert "The heart moves to and fro" in body.text or "the heart moves to and fro" in body.text
    assert "ejection fraction, %" in body.text
    browser.save_screenshot(str(tmp_path / "screenshot.png"))
    browser.find_element("css selector", "[data-step='1']").click()
    assert "pair" in browser.find_element("css selector", "#body h2").text
