"""Predict a reading without a GPU: ``predict(request, card)``."""

from stepcost.predict.prediction import predict

__all__ = ["predict"]
