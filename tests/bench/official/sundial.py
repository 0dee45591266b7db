"""Sundial by the official classes of Apache IoTDB: DIR is its iotdb-core/ainode, which holds the package `ainode` or, later, `iotdb.ainode`; needs
transformers and safetensors.

The classes are used as their own generate() uses them for a horizon within one round: the scaled context goes through the decoder once, and the
flow draws all samples. generate() itself is tied to the transformers of its day, so that a stand-in takes its place; it would add its bookkeeping,
no work on the device.
"""
import importlib
import json
import os
import sys

import torch

from official import compile_part, stand_in

NAME = "sundial"
CASES = "1:2880:96:20,1:512:96:20,64:2880:96:20"
AGREEMENT = (8, 2880, 96, 20)
RESULT = "samples"
NOISE_SEED = 20261121


def matches(config):
    return config.get("model_type") == "sundial"


class Logger:
    def __getattr__(self, name):
        return lambda *arguments, **keywords: None


def load(path, model_dir, device):
    sys.path.insert(0, path)
    from safetensors.torch import load_file

    core = "iotdb.ainode.core" if os.path.isdir(os.path.join(path, "iotdb")) else "ainode.core"
    stand_in(f"{core}.log", Logger=Logger)  # the official one wants a whole IoTDB node around it
    stand_in(f"{core}.model.sundial.ts_generation_mixin", TSGenerationMixin=type("TSGenerationMixin", (), {}))
    sundial = importlib.import_module(f"{core}.model.sundial.modeling_sundial")  # the user gives the path
    with open(os.path.join(model_dir, "config.json")) as file:
        model = sundial.SundialForPrediction(sundial.SundialConfig(**json.load(file) | {"use_cache": False}))
    model.load_state_dict(load_file(os.path.join(model_dir, "model.safetensors")))
    return model.to(device).eval()


def forecaster(model, series, horizon, samples):
    context = series[:, 0]

    def forecast():
        mean = context.mean(dim=-1, keepdim=True)
        deviation = context.std(dim=-1, keepdim=True, unbiased=False) + 1e-5
        output = model(input_ids=(context - mean) / deviation, return_dict=True, max_output_length=horizon, num_samples=samples)
        return output.logits.float() * deviation.unsqueeze(1) + mean.unsqueeze(1)

    return forecast


def compile(model):
    """The flow's network runs once a step and is what compilation gains by."""
    return compile_part(model.flow_loss, "net")


def inputs(model, series, horizon, samples):
    """The flow draws its noise from the CPU's generator: the same seed, the same noise."""
    torch.manual_seed(NOISE_SEED)
    return {"context": series[:, 0], "noise_round0": torch.randn(series.shape[0] * samples, model.flow_loss.in_channels)}


def expected(model, series, horizon, samples):
    torch.manual_seed(NOISE_SEED)
    drawn = forecaster(model, series, horizon, samples)()
    return {RESULT: drawn, "mean": drawn.mean(dim=1)}
