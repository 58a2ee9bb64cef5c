"""The embedded few-shot data: enough characters, none twice, the same every time."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from metaloom.workers.data import glyphs as drawing
from metaloom.workers.data import open_source
from metaloom.workers.data.glyphs import Glyphs


@pytest.fixture(scope="module")
def glyphs(cache: Path) -> Glyphs:
    source = open_source({"source": "glyphs"}, seed=0, cache=cache)
    assert isinstance(source, Glyphs)
    return source


@pytest.fixture(scope="module")
def images(glyphs: Glyphs) -> np.ndarray:
    return np.asarray(glyphs._x)


def test_there_are_a_thousand_characters_of_twenty_drawings(glyphs: Glyphs, images: np.ndarray) -> None:
    assert len(glyphs.table.names) >= 1000 and set(glyphs.table.counts) == {20}
    assert images.shape == (20 * len(glyphs.table.names), 28, 28) and images.dtype == np.uint8
    scripts = {name.split()[1] for name in glyphs.table.names}
    assert {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "CANADIAN"} <= scripts


def test_no_drawing_is_blank_full_or_twice(images: np.ndarray) -> None:
    ink = images.reshape(len(images), -1).mean(1) / 255
    assert ink.min() > 0.005 and ink.max() < 0.75
    assert len({image.tobytes() for image in images}) == len(images)


def test_twins_of_other_scripts_are_left_out(glyphs: Glyphs) -> None:
    names = " ".join(glyphs.table.names)
    assert "LATIN CAPITAL LETTER A " in names + " "
    assert "CYRILLIC CAPITAL LETTER A " not in names + " " and "GREEK CAPITAL LETTER ALPHA" not in names


def test_drawings_are_made_in_time_and_are_always_the_same(glyphs: Glyphs, images: np.ndarray) -> None:
    faces = drawing.faces()
    charmaps = [set(face.get_charmap()) for face in faces]
    started = time.process_time()
    for place in range(0, 200, 4):
        name = glyphs.table.names[place]
        code = int(name.split()[0].removeprefix("U+"), 16)
        rendered = [
            drawing.render(face, code) for face, charmap in zip(faces, charmaps, strict=True) if code in charmap
        ]
        fields = [drawing.distance(ink) for ink in rendered if ink is not None]
        again = drawing.draw(fields, drawing.Pen(), drawing.class_generator(code))
        first = glyphs.table.starts[place]
        np.testing.assert_array_equal(again, images[first : first + 20])
    spent = time.process_time() - started
    assert spent / 50 * len(glyphs.table.names) < 60  # seconds for all, on one core


def test_characters_that_look_alike_are_one_class() -> None:
    looks = np.eye(256, dtype=np.float32)
    near = looks[0] * 0.95 + looks[1] * np.sqrt(1 - 0.95**2)
    far = looks[0] * 0.85 + looks[2] * np.sqrt(1 - 0.85**2)
    kept = drawing.distinct({1: looks[:1], 2: near[None], 3: np.stack([looks[7], looks[0]]), 4: far[None]})
    assert kept == [1, 4]


def test_a_straight_pen_draws_the_glyph_itself() -> None:
    ink = np.full((30, 20), 255, dtype=np.uint8)
    pen = drawing.Pen(0.0, 0.0, 0.0, (15.0, 15.0), 0.0, 0.0, (0.0, 0.0))
    for image in drawing.draw([drawing.distance(ink)], pen, drawing.class_generator(0)):
        rows, columns = np.flatnonzero(image.max(1) > 127), np.flatnonzero(image.max(0) > 127)
        assert np.ptp(rows) + 1 in (14, 15, 16) and np.ptp(columns) + 1 in (9, 10, 11)
        assert abs(image.sum() / 255 - 15 * 10) < 15


def test_pixels_alone_do_not_solve_it(glyphs: Glyphs) -> None:
    scores = []
    for index in range(200):
        episode = glyphs.episode("test", index).episode
        support = torch.nn.functional.normalize(episode.support_x.flatten(1), dim=1)
        query = torch.nn.functional.normalize(episode.query_x.flatten(1), dim=1)
        nearest = episode.support_y[(query @ support.T).argmax(1)]
        scores.append((nearest == episode.query_y).float().mean().item())
    assert 0.50 < np.mean(scores) < 0.66  # 57.7% ± 0.8 over 600 episodes


def test_sampling_costs_little(glyphs: Glyphs) -> None:
    glyphs.episode("train", 0)
    started = time.process_time()
    for index in range(200):
        glyphs.episode("train", index)
    assert (time.process_time() - started) / 200 < 3e-3  # 0.3 ms on a quiet core
