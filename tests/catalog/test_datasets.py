"""The data sets: what is embedded, what may be brought, and what is refused."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from stepcost.catalog.datasets import default_dataset, images_per_epoch, load_dataset

SLICE = Path(os.environ.get("STEPCOST_CIFAR10_SLICE", "../shared/data/cifar10-6k.npz"))


def arrays(**changes):
    """Four valid arrays with ``changes``; ``None`` leaves one out."""
    valid = {
        "train_images": np.zeros((6, 3, 8, 8), np.uint8),
        "train_labels": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "test_images": np.zeros((3, 3, 8, 8), np.uint8),
        "test_labels": np.array([0, 1, 2], np.uint8),
    }
    return {name: value for name, value in (valid | changes).items() if value is not None}


def test_digits_are_split_once_and_for_all():
    """The digits are 1,000 and 797 images of ten classes, the same on every load."""
    first, second = load_dataset("digits", Path("none")), load_dataset("digits", Path("none"))
    assert first.train_images.shape == (1000, 3, 32, 32)
    assert first.test_images.shape == (797, 3, 32, 32)
    assert set(first.train_labels) == set(first.test_labels) == set(range(10))
    assert np.array_equal(first.train_images, second.train_images)
    assert 0.1 < first.chance_accuracy < 0.13
    together = np.concatenate([first.train_images, first.test_images])
    assert len(np.unique(together.reshape(1797, -1), axis=0)) == 1797, "no image is in both halves"


def test_digits_are_those_of_scikit_learn():
    """Each image is one of scikit-learn's under its label: 0 to 16 as 0 to 255, a pixel as 4 by 4, thrice."""
    theirs = load_digits()
    grey = theirs.images.astype(int) * 255 // 16
    expected = sorted((tuple(image.ravel()), label) for image, label in zip(grey, theirs.target, strict=True))
    ours = load_dataset("digits", Path("none"))
    images = np.concatenate([ours.train_images, ours.test_images])
    labels = np.concatenate([ours.train_labels, ours.test_labels])
    small = images[:, 0, ::4, ::4].astype(int)
    assert (
        sorted((tuple(image.ravel()), label) for image, label in zip(small, labels, strict=True)) == expected
    )
    assert np.array_equal(images, np.kron(small[:, None], np.ones((1, 3, 4, 4))))


def test_cifar10_is_read_as_it_is_published(tmp_path, monkeypatch):
    """Rows of 3,072 bytes, red, green and blue plane by plane, are images (3, 32, 32) in the file's order."""
    published = torchvision.datasets.CIFAR10
    folder = tmp_path / published.base_folder
    folder.mkdir()
    dice = np.random.default_rng(0)
    sums, pixels, labels = {}, [], []
    for name in [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]:
        pixels.append(dice.integers(0, 256, (4, 3072), dtype=np.uint8))
        labels.append([int(label) for label in dice.integers(0, 10, 4)])
        (folder / name).write_bytes(pickle.dumps({"data": pixels[-1], "labels": labels[-1]}))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    meta_sum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(published, "train_list", [[name, sums[name]] for name in list(sums)[:5]])
    monkeypatch.setattr(published, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(published, "meta", {**published.meta, "md5": meta_sum})

    data = load_dataset("cifar10", tmp_path)
    assert data.train_images.dtype == data.train_labels.dtype == np.uint8
    assert np.array_equal(data.train_images, np.concatenate(pixels[:5]).reshape(20, 3, 32, 32))
    assert data.train_labels.tolist() == np.concatenate(labels[:5]).tolist()
    assert np.array_equal(data.test_images, pixels[5].reshape(4, 3, 32, 32))
    assert data.test_labels.tolist() == labels[5]


def test_chance_and_classes_by_hand(tmp_path):
    """Chance is the share of the test set's most frequent class; classes are those of the training set."""
    changed = {
        "train_labels": np.array([0, 1, 2, 3, 3, 3], np.uint8),
        "test_labels": np.array([1, 1, 2], np.uint8),
    }
    np.savez(tmp_path / "mine.npz", **arrays(**changed))
    data = load_dataset(str(tmp_path / "mine.npz"), tmp_path)
    assert (data.num_classes, data.chance_accuracy) == (4, 2 / 3)


@pytest.mark.parametrize(
    ("images", "batch", "drop_last", "used"),
    [
        (20, 8, False, 20),
        (20, 8, True, 16),
        (24, 8, True, 24),
        (17, 8, False, 16),
        (17, 8, True, 16),
        (17, 1, False, 17),
        (5, 8, True, 5),
        (8, 8, True, 8),
        (9, 8, True, 8),
    ],
)
def test_images_of_an_epoch_by_hand(images, batch, drop_last, used):
    """A last batch of one is left out, and with ``drop_last`` any that is not full, but for the only one."""
    assert images_per_epoch(images, batch, drop_last) == used


def test_valid_npz_is_taken(tmp_path):
    """Arrays of the right shape and type are taken as they are."""
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    data = load_dataset(str(path), tmp_path)
    assert (data.name, data.num_classes, data.chance_accuracy) == ("mine.npz", 3, pytest.approx(1 / 3))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"test_labels": None}, "lacks the array test_labels"),
        ({"train_images": np.zeros((6, 8, 8, 3), np.uint8)}, r"must be \(N, 3, size, size\)"),
        ({"train_images": np.zeros((6, 3, 8, 4), np.uint8)}, r"must be \(N, 3, size, size\)"),
        ({"train_images": np.zeros((6, 3, 8, 8), np.float32)}, "is float32; it must be uint8"),
        ({"train_labels": np.zeros(6, np.int64)}, "is int64; it must be uint8"),
        ({"train_labels": np.zeros(5, np.uint8)}, r"with 6 images it must be \(6,\)"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, 200], np.uint8)}, "label 200; with 4 classes"),
        ({"test_labels": np.array([0, 1, 9], np.uint8)}, "test_labels has the label 9; with 3 classes"),
        ({"test_images": np.zeros((0, 3, 8, 8), np.uint8), "test_labels": np.zeros(0, np.uint8)}, "is empty"),
        ({"test_images": np.zeros((3, 3, 4, 4), np.uint8)}, "differ in shape"),
        ({"train_labels": np.array([{}] * 6, object)}, "not a readable"),
    ],
)
def test_damaged_npz_is_named_in_one_line(tmp_path, changes, line):
    """A wrong array is refused in one line that names the file, the array and what would be right."""
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(ValueError, match=line) as caught:
        load_dataset(str(path), tmp_path)
    assert str(caught.value).startswith(f"--dataset {path}: ")
    assert "\n" not in str(caught.value)


@given(cut=st.integers(0, 2000))
def test_npz_cut_anywhere_is_one_line(tmp_path_factory, cut):
    """A file that is cut off anywhere, zero bytes included, is refused in one line."""
    folder = tmp_path_factory.mktemp("cut")
    whole, path = folder / "whole.npz", folder / "cut.npz"
    np.savez(whole, **arrays())
    content = whole.read_bytes()
    path.write_bytes(content[: min(cut, len(content) - 1)])
    with pytest.raises(ValueError, match="--dataset") as caught:
        load_dataset(str(path), folder)
    assert "\n" not in str(caught.value)


@given(images=st.integers(1, 500), batch=st.integers(1, 600))
def test_no_batch_of_one_is_left_over(images, batch):
    """All images are trained on but for a last batch of one, which batch norm cannot take."""
    used = images_per_epoch(images, batch)
    assert images - used in (0, 1)
    assert batch == 1 or used % batch != 1
    assert used == images or images % batch == 1


@given(images=st.integers(1, 500), batch=st.integers(1, 600))
def test_only_full_batches_are_left_where_that_is_asked(images, batch):
    """With ``drop_last`` less than a batch is left out, and what remains is full batches or the only one."""
    used = images_per_epoch(images, batch, drop_last=True)
    if images > batch:
        assert used % batch == 0
        assert images - used < batch
    else:  # a single image is no batch
        assert used == (images if images > 1 or batch == 1 else 0)


def test_missing_file_and_unknown_name(tmp_path):
    """A path that does not exist and a name nobody knows are refused with what would be right."""
    with pytest.raises(ValueError, match="no such file"):
        load_dataset(str(tmp_path / "none.npz"), tmp_path)
    with pytest.raises(ValueError, match=r"digits, cifar10 or a path that ends in \.npz"):
        load_dataset("mnist", tmp_path)


def test_data_directory_without_cifar10(tmp_path):
    """CIFAR-10 that is not there is refused with the flag that fetches it."""
    with pytest.raises(ValueError, match="does not hold CIFAR-10; --download fetches it"):
        load_dataset("cifar10", tmp_path)


def test_default_is_cifar10_only_where_it_is(tmp_path):
    """With no flag the data set is CIFAR-10 where the directory holds it, otherwise the digits."""
    assert default_dataset(tmp_path) == "digits"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert default_dataset(tmp_path) == "cifar10"


@pytest.mark.skipif(not SLICE.is_file(), reason="the slice of CIFAR-10 is not here (STEPCOST_CIFAR10_SLICE)")
def test_real_slice_of_cifar10():
    """A real slice of CIFAR-10 loads with ten classes."""
    data = load_dataset(str(SLICE), Path("none"))
    assert data.num_classes == 10
    assert data.train_images.shape[1:] == (3, 32, 32)
