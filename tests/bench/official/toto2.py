"""Toto 2.0 by its official package: DIR is a checkout of DataDog/toto, which holds toto2/toto2 and dd_unit_scaling; needs unit-scaling, einops,
jaxtyping, pandas and huggingface-hub. GluonTS is wanted by the official module's wrapper alone: where it is not installed, empty classes stand in
for it.

The whole horizon comes from one call, as in all official results (decode_block_size=None), without missing values, so that the official code
may take its fast attention. Samples do not exist: 0.
"""
import importlib.util
import os
import sys

import torch

from official import compile_part, stand_in

NAME = "toto2"
CASES = "1:512:96:0,64:512:96:0,512:512:96:0"
AGREEMENT = (64, 512, 96, 0)
RESULT = "quantiles"

GLUONTS = {
    "gluonts": "",
    "gluonts.model": "",
    "gluonts.model.forecast_generator": "QuantileForecastGenerator",
    "gluonts.torch": "PyTorchPredictor",
    "gluonts.transform": "AddObservedValuesIndicator AsNumpyArray ExpandDimArray TestSplitSampler Transformation",
    "gluonts.transform.feature": "DummyValueImputation MissingValueImputation",
    "gluonts.transform.split": "InstanceSplitter TFTInstanceSplitter",
}


def matches(config):
    return "num_variate_layers_per_group" in config


def stand_in_for_gluonts():
    for name, classes in GLUONTS.items():
        stand_in(name, **{each: type(each, (), {}) for each in classes.split()})


def load(path, model_dir, device):
    sys.path[:0] = [path, os.path.join(path, "toto2"), os.path.join(path, "dd_unit_scaling")]
    if importlib.util.find_spec("gluonts") is None:
        stand_in_for_gluonts()
    from toto2.model import Toto2Model  # noqa: the user gives the path

    return Toto2Model.from_pretrained(model_dir, map_location=device).to(device).eval()


def forecaster(model, series, horizon, samples):
    given = {
        "target": series,
        "target_mask": torch.ones_like(series, dtype=torch.bool),
        "series_ids": torch.zeros(series.shape[:2], dtype=torch.long, device=series.device),
    }
    return lambda: model.forecast(given, horizon, decode_block_size=None, has_missing_values=False)


def compile(model):
    return compile_part(model, "transformer")


def inputs(model, series, horizon, samples):
    return {
        "target": series,
        "target_mask": torch.ones(series.shape, dtype=torch.int64),
        "series_ids": torch.zeros(series.shape[:2], dtype=torch.int64),
    }


def expected(model, series, horizon, samples):
    return {RESULT: forecaster(model, series, horizon, samples)().float()}
