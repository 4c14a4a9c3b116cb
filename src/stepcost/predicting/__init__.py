"""Predict a reading without a GPU: ``predict(request, card)``."""

from stepcost.predicting.prediction import predict

__all__ = ["predict"]
