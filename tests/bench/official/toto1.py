"""Toto 1.0 by its official package: DIR is a checkout of DataDog/toto (or the site-packages), which holds `toto`; needs gluonts, einops, jaxtyping,
huggingface-hub and rotary-embedding-torch. xFormers is used where it is installed. Samples 0 for mean decoding.
"""
import sys

import torch

from official import compile_part

NAME = "toto1"  # in case.json
CASES = "1:512:64:0,1:512:64:256,1:512:336:256,512:512:64:0,512:512:64:256,64:512:336:256"
AGREEMENT = (512, 512, 336, 0)
RESULT = "forecast_mean"


def matches(config):
    return "scaler_cls" in config


def load(path, model_dir, device):
    sys.path.insert(0, path)
    from toto.model.toto import Toto  # noqa: the user gives the path

    return Toto.load_from_checkpoint(model_dir, map_location=device).to(device).eval()


def masked(series):
    from toto.data.util.dataset import MaskedTimeseries

    batch, variates, length = series.shape
    return MaskedTimeseries(
        series=series,
        padding_mask=torch.ones_like(series, dtype=torch.bool),
        id_mask=torch.zeros_like(series, dtype=torch.int),
        timestamp_seconds=torch.zeros_like(series, dtype=torch.int),
        time_interval_seconds=torch.ones(batch, variates, dtype=torch.int, device=series.device),
    )


def forecaster(model, series, horizon, samples):
    from toto.inference.forecaster import TotoForecaster

    forecaster = TotoForecaster(model.model)
    per_batch = samples if samples * series.shape[0] <= 16384 else max(1, 16384 // series.shape[0])
    while samples and samples % per_batch:
        per_batch -= 1

    def forecast():
        return forecaster.forecast(
            masked(series), prediction_length=horizon, num_samples=samples or None, samples_per_batch=per_batch or 1, use_kv_cache=True
        )

    return forecast


def compile(model):
    return compile_part(model, "model")


def inputs(model, series, horizon, samples):
    return {
        "series": series,
        "padding_mask": torch.ones(series.shape, dtype=torch.int64),
        "id_mask": torch.zeros(series.shape[:2], dtype=torch.int64),
    }


def expected(model, series, horizon, samples):
    return {RESULT: forecaster(model, series, horizon, samples)().mean.float()}
