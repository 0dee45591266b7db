"""Kronos by its official classes: DIR is a checkout of shiyu-coder/Kronos, which holds the package `model`; the tokenizer is the checkpoint's
tokenizer/.

Bars are made of the series: all six fields have about its scale. Timed forecasts draw as the official predictor does by default; those that are
compared are greedy, so that both sides have one right answer.
"""
import datetime
import json
import os
import sys

import torch

from official import compile_part, stand_in_if_absent

NAME = "kronos"
CASES = "1:256:24:1,1:400:120:10,16:400:120:1"
AGREEMENT = (4, 256, 24, 1)
RESULT = "prediction"
PARAMETERS = {"top_k": 1, "T": 1.0, "top_p": 1.0, "sample_count": 1, "max_context": 512}
INTERVAL, BEGIN = 300, 1700000000  # seconds
COMPUTED = (".rotary.inv_freq", "tokenizer.bsq.")  # buffers that a checkpoint may leave out


def matches(config):
    return "learn_te" in config


class Official:
    def __init__(self, predictor, tokenizer, inference):
        self.predictor, self.tokenizer, self.inference = predictor, tokenizer, inference


def load_part(kind, directory, device):
    from safetensors.torch import load_file

    with open(os.path.join(directory, "config.json")) as file:
        module = kind(**json.load(file))
    missing, unexpected = module.load_state_dict(load_file(os.path.join(directory, "model.safetensors")), strict=False)
    wrong = unexpected + [name for name in missing if not any(part in name for part in COMPUTED)]
    if wrong:
        sys.exit(f"{directory}: tensors missing or unexpected: {', '.join(wrong)}")
    return module.to(device).eval()


def load(path, model_dir, device):
    sys.path.insert(0, path)
    stand_in_if_absent("huggingface_hub", PyTorchModelHubMixin=type("PyTorchModelHubMixin", (), {}))
    stand_in_if_absent("tqdm", trange=range)
    stand_in_if_absent("pandas")
    stand_in_if_absent("einops", rearrange=None, reduce=None)
    from model.kronos import Kronos, KronosTokenizer, auto_regressive_inference  # noqa: the user gives the path

    tokenizer = load_part(KronosTokenizer, os.path.join(model_dir, "tokenizer"), device)
    decode = tokenizer.decode
    tokenizer.decode = lambda *tokens, **options: decode(*tokens, **options).float()  # numpy, which takes the result, has no bf16
    return Official(load_part(Kronos, model_dir, device), tokenizer, auto_regressive_inference)


def bars_of(series):
    """[batch, context, 6]: a bar opens where the one before closed; volume and amount are the series backwards."""
    close = series[:, 0]
    opened = torch.cat([close[:, :1], close[:, :-1]], dim=1)
    high, low = torch.maximum(opened, close) + 0.01, torch.minimum(opened, close) - 0.01
    return torch.stack([opened, high, low, close, close.flip(1), close.flip(1)], dim=-1)


def seconds_of(first, count, batch):
    return (BEGIN + INTERVAL * torch.arange(first, first + count)).expand(batch, count)


def stamps_of(seconds, device):
    times = [datetime.datetime.fromtimestamp(second, datetime.timezone.utc) for second in seconds[0].tolist()]
    stamps = [[time.minute, time.hour, time.weekday(), time.day, time.month] for time in times]
    return torch.tensor(stamps, dtype=torch.float32, device=device).expand(seconds.shape[0], -1, -1)


def forecaster(model, series, horizon, samples, **choice):
    bars = bars_of(series)
    batch, context, _ = bars.shape
    past = stamps_of(seconds_of(0, context, batch), series.device)
    future = stamps_of(seconds_of(context, horizon, batch), series.device)
    options = {"T": 1.0, "top_k": 0, "top_p": 0.9, "sample_count": samples or 1, "max_context": PARAMETERS["max_context"]} | choice

    def forecast():
        mean, deviation = bars.mean(dim=1, keepdim=True), bars.std(dim=1, keepdim=True, unbiased=False) + 1e-5
        drawn = model.inference(model.tokenizer, model.predictor, (bars - mean) / deviation, past, future, pred_len=horizon, **options)
        return torch.from_numpy(drawn[:, -horizon:]).to(series.device).float() * deviation + mean

    return forecast


def compile(model):
    """The two calls of each step."""
    return compile_part(model.predictor, "decode_s1", "decode_s2")


def inputs(model, series, horizon, samples):
    batch, _, context = series.shape
    return {
        "ohlcva": bars_of(series),
        "x_timestamp_seconds": seconds_of(0, context, batch),
        "y_timestamp_seconds": seconds_of(context, horizon, batch),
    }


def expected(model, series, horizon, samples):
    mean = forecaster(model, series, horizon, samples, T=1.0, top_k=1, top_p=1.0)()
    return {RESULT: mean, "norm_std": bars_of(series).std(dim=1, unbiased=False)}
