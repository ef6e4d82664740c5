"""What can be asked: images by id, uploads, and a query in every orientation."""

import io

import numpy as np
import pytest
import torch
from helpers import flat_png
from PIL import Image

from derm_hash.data.images import square, to_input
from derm_hash.errors import InputError
from derm_hash.explorers.asking import (
    DISC,
    MOST_BYTES,
    ORIENTATIONS,
    QUARTERS,
    Library,
    network,
    orbit,
)
from derm_hash.model import DermHash
from derm_hash.rotations import rotate
from tests.explorers.common import SIZE


@pytest.fixture(scope="module")
def library(dataset):
    return Library(dataset)


def test_every_orientation_once_and_quarter_turns_first():
    assert sorted(ORIENTATIONS) == [*range(145)]
    assert ORIENTATIONS[:8] == QUARTERS == [0, 18, 36, 54, 72, 90, 108, 126]


def test_orientations_are_the_image_mirrored_and_turned(library):
    image = library.get("query", 0).image
    x = to_input(image)[None]
    found = orbit(image, [0, 18, 90, 7, 79, DISC])
    expected = [x, x.rot90(1, (2, 3)), x.flip(-1).rot90(1, (2, 3))]
    expected += [rotate(x, 35), rotate(x.flip(-1), 35), rotate(x, 0)]
    torch.testing.assert_close(found, torch.cat(expected))


def test_an_image_is_found_by_its_id(library):
    for name, part in library.parts.items():
        for text in (part.table["image"][5], f" {part.table['image'][5][7:-4]} "):
            query = library.find(text)
            assert (query.origin, query.position) == (name, 5)
    with pytest.raises(InputError, match=r"no image 'blob99' among the 10 queries and 30 data"):
        library.find("blob99")
    with pytest.raises(InputError, match="30 database images, from 0 on: no 30"):
        library.get("database", 30)


def test_an_id_that_several_images_have_is_none(foldered):
    library = Library(foldered)
    with pytest.raises(InputError, match=r"4 images have the id '002'.*path.*images/NV/002\.png"):
        library.find("002")
    for rows in library.rows.values():
        for row in rows:
            assert library.find(row["id"]).about["name"] == row["name"]
    ids = {row["name"]: row["id"] for rows in library.rows.values() for row in rows}
    assert ids["images/MEL/002.png"] == "images/MEL/002.png"
    assert ids["images/BKL/alone.png"] == "alone"
    assert [row["name"] for row in library.rows["query"]] == library.queries.table["image"].tolist()


def test_an_upload_is_cut_square_and_its_label_is_not_known(library):
    content = flat_png((60, 40), "L", 200)
    query = library.upload(content, "grey.png")
    expected = np.asarray(square(Image.open(io.BytesIO(content)).convert("RGB"), SIZE))
    np.testing.assert_array_equal(query.image.permute(1, 2, 0), expected)
    assert query.label is None and query.origin == "upload" and query.shown.shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no image at all", "not an image"),
        (b"", "not an image"),
        (flat_png()[:60], "damaged|not an image"),
        (b"x" * (MOST_BYTES + 1), "more than the 10 MB"),
    ],
)
def test_a_bad_upload_is_refused(library, content, sentence):
    with pytest.raises(InputError, match=f"bad.jpg.*({sentence})"):
        library.upload(content, "bad.jpg")


def test_the_index_must_belong_to_database_and_model(model, index, dataset, library):
    with pytest.raises(InputError, match="not made from this database"):
        network(model, index, Library(dataset, database=dataset.split("query")))
    with pytest.raises(InputError, match="12 bits and the model makes 8"):
        network(DermHash("resnet8", bits=8), index, library)


def test_larger_pictures_are_of_the_same_images(dataset):
    with pytest.raises(InputError, match="larger query images are other images"):
        Library(dataset, larger=dataset.select(range(1, 40)))
    assert Library(dataset, larger=dataset).shown["query"].picture(0).shape == (SIZE, SIZE, 3)
