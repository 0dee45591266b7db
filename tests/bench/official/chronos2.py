"""Chronos-2 by its official package: DIR holds `chronos` (chronos-forecasting's src, or site-packages); needs transformers, accelerate, einops
and pandas. Its pipeline forecasts a prepared batch, so that no time goes into its data loader."""
import sys

import torch

from official import compile_part

NAME = "chronos2"  # in case.json
CASES = "1:2048:64:0,1:512:64:0,64:2048:64:0,512:2048:64:0,1:2048:1500:0"
AGREEMENT = (1, 2048, 64, 0)
RESULT = "prediction_0"  # [1, levels, horizon]
UNROLLED = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
LEVELS = [0.1, 0.25, 0.5, 0.9]


def matches(config):
    return "max_output_patches" in config.get("chronos_config", {})


def load(path, model_dir, device):
    sys.path.insert(0, path)
    from chronos.chronos2 import Chronos2Pipeline  # noqa: the user gives the path

    return Chronos2Pipeline.from_pretrained(model_dir, device_map=device)


def batch_of(series, horizon):
    """A series a group, nothing known of the future."""
    rows = series.shape[0]
    return {
        "context": series[:, 0],
        "group_ids": torch.arange(rows, device=series.device),
        "future_covariates": torch.full((rows, horizon), torch.nan, device=series.device),
    }


def forecaster(model, series, horizon, samples):
    batch = batch_of(series, horizon)
    unrolled = torch.tensor(UNROLLED)

    def forecast():
        return model._predict_batch(
            **batch,
            unrolled_quantiles_tensor=unrolled,
            prediction_length=horizon,
            max_output_patches=model.max_output_patches,
            target_idx_ranges=[(0, series.shape[0])],
        )[0]

    return forecast


def compile(model):
    return compile_part(model, "model")


def inputs(model, series, horizon, samples):
    return {f"batch.{name}": tensor for name, tensor in batch_of(series, horizon).items()}


def expected(model, series, horizon, samples):
    from chronos.utils import interpolate_quantiles

    prediction = forecaster(model, series, horizon, samples)().float()
    return {
        RESULT: prediction,
        "quantiles_interp_0": interpolate_quantiles(LEVELS, model.quantiles, prediction.transpose(1, 2).contiguous()),
        "interp_levels": torch.tensor(LEVELS),
        "round0.scale": series[:, 0].std(-1, keepdim=True, unbiased=False),
    }
