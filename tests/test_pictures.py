"""Feedback with pictures: every one is found, opened once, named by content, and refused by its row where it is not what it
should be."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from penchant.errors import Refusal
from penchant.feedback import pictures
from penchant.feedback.pictures import Gallery, open_pictures
from penchant.feedback.problems import DataRefusal
from penchant.feedback.splitting import split

PIL = pytest.importorskip("PIL.Image")


def picture(shade: int, size: tuple[int, int] = (6, 4)) -> Any:
    return PIL.new("RGB", size, (shade, 0, 255 - shade))


def data(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for k in range(4):
        picture(50 * k).save(folder / "in" / f"{k}.png")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_paths_images_and_stored_bytes_are_the_same_kind_of_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))
    file = data(tmp_path, [{"prompt": f"p{k}", "chosen": "in/0.png", "rejected": f"in/{k + 1}.png"} for k in range(3)])
    source, gallery = open_pictures(file)
    assert source.kind == "pairs" and len(source) == 3
    chosen, rejected = source[1].responses
    assert chosen.startswith("in/0.png#") and gallery.open(rejected).getpixel((0, 0)) == (100, 0, 155)
    given, held = open_pictures([{"prompt": "p", "responses": [picture(1), picture(2)], "scores": [0.1, 2]}])
    assert given.kind == "lists" and held.open(given[0].responses[1]).getpixel((0, 0)) == (2, 0, 253)
    buffer = io.BytesIO()
    picture(9).save(buffer, "PNG")
    stored, kept = open_pictures([{"prompt": "p", "completion": {"bytes": buffer.getvalue(), "path": "/etc/passwd"}}])
    assert stored.kind == "labelled" and stored[0].label is True, "winners only are demonstrations"
    assert kept.open(stored[0].responses[0]).getpixel((0, 0)) == (9, 0, 246)
    assert sorted(map(len, split(source, 1, 0))) == [1, 2], "all that rows can do, these can"


def test_what_a_picture_shows_is_in_the_fingerprint_and_a_changed_one_is_refused(tmp_path: Path):
    file = data(tmp_path, [{"prompt": "p", "chosen": "in/0.png", "rejected": "in/1.png"}])
    source, gallery = open_pictures(file)
    row = source[0]
    assert open_pictures(file)[0].fingerprint == source.fingerprint
    picture(77).save(tmp_path / "in" / "1.png")
    with pytest.raises(Refusal, match="not what it was when the data was checked"):
        gallery.open(row.responses[1])
    with pytest.raises(Refusal, match=r"row 1 .* is not what it was"):
        source[0]
    assert open_pictures(file)[0].fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.org/a.png", "is an address; nothing is fetched"),
        ("file:///etc/passwd", "is an address"),
        ("../outside.png", "leads out of the data's own folder"),
        ("in/link.png", "leads out of the data's own folder"),
        ("/etc/hostname", "begins in the data's own folder"),
        ("in/nothing.png", "is no file that is there"),
        ("in", "is no file that is there"),
        ("in/broken.png", "is a broken picture"),
        ("in/text.png", "is no picture that can be read; write it as PNG, JPEG, WEBP, BMP"),
        ("in/program.eps", "is no picture that can be read"),
        ("in/large.png", r"has 40 × 30 pixels; at most 1,000"),
        (7, "is a number; a picture is a path beside the data or a PIL image"),
        (None, "is null; a picture is"),
    ],
)
def test_a_picture_that_is_none_is_refused_by_its_row(
    path: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pictures, "PIXELS", 1000)
    inner = tmp_path / "data"
    rows = [{"prompt": "p", "chosen": "in/0.png", "rejected": "in/1.png"}]
    file = data(inner, [*rows, {"prompt": "q", "chosen": "in/2.png", "rejected": path}, *rows])
    picture(3).save(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", inner / "in" / "link.png")
    picture(4, (40, 30)).save(inner / "in" / "large.png")
    noise = PIL.frombytes("RGB", (30, 30), os.urandom(2700))
    noise.save(inner / "in" / "whole.png")
    (inner / "in" / "broken.png").write_bytes((inner / "in" / "whole.png").read_bytes()[:1500])
    (inner / "in" / "text.png").write_text("no picture")
    (inner / "in" / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    with pytest.raises(DataRefusal, match=rf"1 problem in 1 of 3 rows(.|\n)*row 2, rejected.*{said}"):
        open_pictures(file)
    kept, _ = open_pictures(file, bad_rows="drop")
    assert list(kept.numbers) == [1, 3] and kept.dropped == {"picture": 1}


def test_paths_in_python_rows_need_a_root_and_rows_that_are_none_are_said_to_be(tmp_path: Path):
    data(tmp_path, [])
    row = {"prompt": "p", "chosen": "in/0.png", "rejected": "in/1.png"}
    with pytest.raises(DataRefusal, match="say root=FOLDER"):
        open_pictures([row])
    assert len(open_pictures([row], root=tmp_path)[0]) == 1
    with pytest.raises(DataRefusal, match="a row must be an object"):
        open_pictures([3])
    with pytest.raises(DataRefusal, match="same as 'rejected'"):
        open_pictures([{**row, "rejected": "in/0.png"}], root=tmp_path)


def test_a_picture_is_turned_as_its_camera_was_held(tmp_path: Path):
    sideways = picture(5, (6, 4))
    exif = PIL.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "a.jpg", exif=exif)
    gallery = Gallery(tmp_path)
    assert gallery.open(gallery.name("a.jpg")).size == (4, 6)
