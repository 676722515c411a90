"""Figures of reports are full of what they show."""

import numpy as np
from PIL import Image

from janusflow.evaluation import figures


def item(group, index):
    wanted = "a red circle left of a blue square" if group == "position" else "a star"
    place = dict(split="test", group=group, index=index, seed=0)
    return dict(scores={"strict": False}, wanted=wanted, said="red ring, blue square", **place)


def test_a_sheet_of_uneven_groups_has_no_empty_rows(tmp_path):
    Image.new("RGB", (96, 96), "black").save(tmp_path / "image.png")
    items = [item("colors", 0), *(item("position", i) for i in range(8))]
    groups = {"colors": {"items": 10}, "position": {"items": 10}}
    report = {"items": items, "scores": {"test": {"groups": groups}}}
    sheet = figures.failure_sheet(report, tmp_path, "test", lambda _: "image.png")
    share = (np.asarray(sheet.convert("L")) < 10).mean()
    assert share > 0.6, f"only {share:.2f} of the sheet is image"


def test_a_sheet_without_failures_says_so():
    report = {"items": [], "scores": {"test": {"groups": {"colors": {"items": 10}}}}}
    sheet = figures.failure_sheet(report, None, "test", lambda _: None)
    assert np.asarray(sheet).min() < 128
