"""Seconds of a captured step without a GPU: its operators, each as it was recorded in place on a card."""

from stepcost.predicting.times.step_time import (
    FROM_RATES,
    RECORDED,
    Contributor,
    Part,
    StepTime,
    predict_busy,
    predict_parts,
    predict_time,
)

__all__ = [
    "FROM_RATES",
    "RECORDED",
    "Contributor",
    "Part",
    "StepTime",
    "predict_busy",
    "predict_parts",
    "predict_time",
]
