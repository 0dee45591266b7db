"""Chronos-Bolt by its official package: DIR holds `chronos` (chronos-forecasting's src, or site-packages); needs transformers, accelerate, einops
and pandas.
"""
import sys

import torch

from official import compile_part

NAME = "chronos_bolt"  # in case.json
CASES = "1:512:64:0,1:2048:64:0,512:512:64:0,1:512:256:0"
AGREEMENT = (32, 512, 64, 0)
RESULT = "prediction"  # [series, levels, horizon]
LEVELS = [0.1, 0.25, 0.5, 0.9]


def matches(config):
    return "prediction_length" in config.get("chronos_config", {}) and "input_patch_size" in config["chronos_config"]


def load(path, model_dir, device):
    sys.path.insert(0, path)
    from chronos import ChronosBoltPipeline  # noqa: the user gives the path

    return ChronosBoltPipeline.from_pretrained(model_dir, device_map=device)


def forecaster(model, series, horizon, samples):
    def forecast():
        return model.predict(series[:, 0], prediction_length=horizon)

    return forecast


def compile(model):
    return compile_part(model, "model")


def inputs(model, series, horizon, samples):
    return {f"series_{i}": one for i, one in enumerate(series[:, 0])}


def expected(model, series, horizon, samples):
    quantiles, _ = model.predict_quantiles(series[:, 0], prediction_length=horizon, quantile_levels=LEVELS)
    return {
        RESULT: forecaster(model, series, horizon, samples)().float(),
        "quantiles_interp": quantiles.float(),
        "interp_levels": torch.tensor(LEVELS),
        "round0.scale": series[:, 0].std(-1, keepdim=True, unbiased=False),
    }
