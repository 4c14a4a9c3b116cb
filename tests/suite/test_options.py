"""The flags: what they take, and what they refuse in one line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcost.settings import FLAGS, settings_of


def settings(**given_flags):
    """Settings with the text of some flags given, by field."""
    values = {
        name: False if flag.read is None and flag.metavar is None else flag.default
        for name, flag in FLAGS.items()
    }
    return settings_of((values | {"dataset": "digits"} | given_flags).__getitem__)


def test_defaults():
    """With no flag the configurations of the write-up are asked for."""
    chosen = settings()
    assert chosen.batch_sizes == (4, 16, 64, 256)
    assert chosen.optimizers == ("sgd", "sgd-momentum", "adam")
    assert (chosen.optimizer_batch_size, chosen.batch_optimizer) == (64, "sgd")


@pytest.mark.parametrize(
    ("sizes", "compared"), [("8,4,256", 8), ("256,4", 256), ("5", 5), ("4,64,256,512", 64), ("512,64", 64)]
)
def test_the_batch_size_at_which_optimizers_are_compared(sizes, compared):
    """That of 64 images where it is asked for, else the one in the middle, of two the larger."""
    assert settings(batch_sizes=sizes).optimizer_batch_size == compared


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"optimizers": "sgd,adm"}, "--optimizers: unknown optimizer 'adm'; did you mean adam"),
        ({"optimizers": ""}, "--optimizers: '' names nothing"),
        ({"optimizers": "sgd,sgd"}, "names something twice"),
        ({"batch_sizes": "0"}, "--batch-sizes: '0' is not a whole number of 1 or more"),
        ({"batch_sizes": "4,-16"}, "--batch-sizes: '-16' is not a whole number of 1 or more"),
        ({"batch_sizes": "many"}, "--batch-sizes: 'many' is not a whole number"),
        ({"batch_sizes": "4,4"}, "names something twice"),
        ({"batch_sizes": ","}, "names nothing"),
        ({"image_size": "0"}, "--image-size: '0' is not"),
        ({"epochs": "1.5"}, "--epochs: '1.5' is not"),
        ({"seeds": "-1"}, "--seeds: '-1' is not a whole number of 0 or more"),
        (
            {"seeds": "99999999999999999999"},
            "is too large; it takes numbers up to 9,223,372,036,854,775,807",
        ),
        ({"device": "gpu"}, "--device: unknown device 'gpu'; it takes cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "--device: unknown device 'cuda:x'"),
        ({"dataset": "mnist"}, "--dataset: unknown data set 'mnist'; it takes digits"),
        ({"engine": "warp"}, "--engine: unknown name 'warp'"),
        ({"engines": "eager,warp"}, "--engines: unknown name 'warp'"),
        (
            {"savers": "bf16,bf61"},
            "--savers: unknown name 'bf61'; did you mean bf16? It takes bf16, pure-bf16",
        ),
        ({"savers": "bf16+fp16"}, "--savers: bf16+fp16: bf16 and fp16 both change precision"),
        ({"savers": "all,bf16"}, "--savers: 'all,bf16' names something twice"),
        ({"savers": "plain,bf16"}, "--savers: plain is always among them"),
        ({"fsdp_precision": "bf16", "parallel": "ddp"}, "--fsdp-precision: it is of --parallel fsdp2"),
        ({"schedule": "step"}, "--schedule: unknown name 'step'"),
        ({"card": "h100"}, "--gpu: unknown name 'h100'; did you mean h100-80gb"),
        ({"price": "2.50"}, "--price: '2.50' is not a price; it takes money for an hour: 2.50/h or $2.50/h"),
        ({"time_limit_s": "0"}, "--time-limit: '0' is not"),
    ],
)
def test_wrong_values_are_refused(flags, line):
    """A wrong value is refused in one line that names the flag and what it takes."""
    with pytest.raises(ValueError, match=re.escape(line)) as caught:
        settings(**flags)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_batch_sizes_or_refused(text):
    """Whatever is given as batch sizes is either taken as positive numbers or refused in one line."""
    try:
        sizes = settings(batch_sizes=text).batch_sizes
    except ValueError:
        return
    assert sizes
    assert all(size >= 1 for size in sizes)


@given(st.lists(st.integers(1, 4096), min_size=1, unique=True))
def test_optimizers_are_compared_at_64_or_in_the_middle(sizes):
    """The batch size of question 2 is 64 where it was asked for, else one that was asked for."""
    chosen = settings(batch_sizes=",".join(map(str, sizes)))
    assert chosen.optimizer_batch_size in sizes
    assert chosen.optimizer_batch_size == 64 or 64 not in sizes


def test_download_means_cifar10():
    """Asking for the download without naming a data set asks for CIFAR-10."""
    assert settings(download=True, dataset=None).dataset == "cifar10"


def test_an_optimizer_may_be_a_class():
    """A class of one's own is taken by where it is defined, alongside names of the catalog."""
    assert settings(optimizers="sgd,mine:Lion").optimizers == ("sgd", "mine:Lion")


def test_cifar10_is_taken_where_the_data_directory_has_it(monkeypatch, tmp_path):
    """Unless a data set is named it is CIFAR-10 where --data-dir holds it, and digits where it does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "cifar-10-batches-py").mkdir(parents=True)
    assert settings(dataset=None, data_dir="there").dataset == "cifar10"
    assert settings(dataset=None, data_dir="elsewhere").dataset == "digits"
    assert settings(data_dir="there").dataset == "digits"
