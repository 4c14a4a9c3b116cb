from __future__ import annotations

import json

import pytest

from stepcost.predict.command import main


def test_json_is_one_object_with_the_names_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is one JSON object and nothing else, under the stored names."""
    assert (
        main(["small-cnn", "--optimizer", "adam", "--batch-size", "8", "--gpu", "h100-80gb", "--json"]) == 0
    )
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert answer["source"] == "predicted"
    assert answer["fits"] is True
    assert (answer["model"], answer["optimizer"], answer["batch_size"]) == ("small-cnn", "adam", 8)
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "process_bytes", "tensor_bytes", "seconds"):
        assert answer[name] > 0
    assert sum(answer["ledger"].values()) == answer["process_bytes"]


def test_the_error_to_expect_is_said_where_runs_can_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """On the card and torch that were compared a range around zero; on any other nothing."""
    where = [
        "resnet18",
        "--batch-size",
        "8",
        "--image-size",
        "224",
        "--gpu",
        "h100-80gb",
        "--json",
        "--torch",
    ]
    main([*where, "2.15.0+cu132"])
    assert json.loads(capsys.readouterr().out)["expected_error"] is None
    main([*where, "2.11.0+cu130"])
    low, high = json.loads(capsys.readouterr().out)["expected_error"]["peak_allocated_bytes"]
    assert low <= 0 <= high
    main(["small-cnn", "--batch-size", "8", "--gpu", "t4", "--json"])
    assert json.loads(capsys.readouterr().out)["expected_error"] is None


def test_an_estimate_has_a_wider_range_the_more_is_estimated(capsys: pytest.CaptureFixture[str]) -> None:
    """Recorded workspaces, those of another batch size and those of other convolutions, in this order."""
    widths = []
    for model, batch in (("resnet18", "8"), ("resnet18", "9"), ("small-cnn", "8")):
        main([model, "--batch-size", batch, "--gpu", "h100-80gb", "--torch", "2.11", "--json"])
        low, high = json.loads(capsys.readouterr().out)["expected_error"]["peak_allocated_bytes"]
        widths.append(high - low)
    assert widths == sorted(set(widths))


def test_the_table_says_which_mib(capsys: pytest.CaptureFixture[str]) -> None:
    """What people read has its unit."""
    assert main(["small-cnn", "--batch-size", "8"]) == 0
    assert "2**20" in capsys.readouterr().out


def test_the_largest_batch_fits_and_its_neighbour_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The batch found is predicted to fit, and one that is 1 % larger is not."""
    where = ["small-cnn", "--image-size", "224", "--gpu", "t4", "--json"]
    main([*where, "--largest-batch"])
    largest = json.loads(capsys.readouterr().out)["largest_batch"]
    for size, fits in ((largest, True), (largest + max(1, largest // 100), False)):
        main([*where, "--batch-size", str(size)])
        assert json.loads(capsys.readouterr().out)["fits"] is fits


def test_the_end_of_the_search_is_not_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Where more images fit than the search looks at, it says so instead of naming a number."""
    with pytest.raises(SystemExit) as ended:
        main(["small-cnn", "--image-size", "8", "--gpu", "b200", "--largest-batch"])
    assert ended.value.code == 2
    assert "the search ends at 1,048,576" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet999"], "unknown model 'resnet999'"),
        (["small-cnn", "--optimizer", "sdg"], "unknown optimizer 'sdg'"),
        (["small-cnn", "--gpu", "h100"], "did you mean h100-80gb?"),
        (["small-cnn", "--batch-size", "0"], "'0' is not a whole number from 1 on"),
        (["small-cnn", "--batch-size", "many"], "'many' is not a whole number"),
        (["small-cnn", "--largest-batch"], "--largest-batch needs --gpu"),
        (["small-cnn", "--torch", "new"], "'new' is not a torch version"),
        (["vgg16", "--image-size", "8"], "cannot be traced"),
    ],
)
def test_nonsense_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong request gets one clear line on standard error, nothing on standard output, and exit 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
