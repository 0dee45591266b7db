#!/usr/bin/env python3
"""Runs the official PyTorch implementation of a model beside Barcast, on one checkpoint and the same inputs in the same run: checks that both
agree, then times both and prints the ratios.

    tests/bench/compare_torch.py --official DIR --barcast build/bin/barcast --model CHECKPOINT [--cases 1:512:64:256,...]

DIR is a checkout (or the site-packages) that holds the official package `toto` and what it imports. A case is batch:context:horizon:samples,
samples 0 for mean decoding. Agreement: the official fp32 forecast becomes a golden case that `barcast verify` must reproduce in fp32 within
1e-4 of the series' scale; in bf16 its average deviation from it may be no larger than the official model's own in bf16. Developers' tool; needs PyTorch and a GPU.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch


def seeded_series(batch, context, device):
    """Random walks with a little seasonality, [batch, 1, context], seeded: inputs that look like prices."""
    generator = torch.Generator().manual_seed(20261121)
    steps = torch.randn(batch, 1, context, generator=generator) * 0.01
    phase = torch.arange(context) * (2 * torch.pi / 48)
    series = 100 * torch.exp(steps.cumsum(-1)) + torch.sin(phase)
    return series.float().to(device)


def load_official(path, model_dir, device):
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


def milliseconds(call, seconds, least=3):
    """Median wall time of `call` in ms after one warm-up, device included."""
    call()
    torch.cuda.synchronize()
    times, end = [], time.monotonic() + seconds
    while len(times) < least or (time.monotonic() < end and len(times) < 50):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def official_times(model, series, horizon, samples, seconds, compiled):
    from toto.inference.forecaster import TotoForecaster

    times = {}
    forecaster = TotoForecaster(model.model)
    per_batch = samples if samples * series.shape[0] <= 16384 else max(1, 16384 // series.shape[0])
    while samples and samples % per_batch:
        per_batch -= 1

    def forecast():
        return forecaster.forecast(
            masked(series), prediction_length=horizon, num_samples=samples or None, samples_per_batch=per_batch or 1, use_kv_cache=True
        )

    def in_bf16():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            return forecast()

    times["eager fp32"] = milliseconds(forecast, seconds)
    times["eager bf16"] = milliseconds(in_bf16, seconds)
    if compiled:
        plain = forecaster.model
        try:
            forecaster.model = torch.compile(plain, mode="reduce-overhead")
            start = time.perf_counter()
            forecast()
            torch.cuda.synchronize()
            times["compile, first call"] = (time.perf_counter() - start) * 1e3
            times["compiled fp32"] = milliseconds(forecast, seconds)
        except Exception as failure:  # what users meet: skipped graphs, recompile limits, overwritten outputs
            print(f"  torch.compile failed: {str(failure).splitlines()[0][:120]}")
        finally:
            forecaster.model = plain
            torch.compiler.reset()
    return times


def official_mean(model, series, horizon, bf16):
    from toto.inference.forecaster import TotoForecaster

    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
        return TotoForecaster(model.model).forecast(masked(series), prediction_length=horizon, num_samples=None).mean.float()


def write_case(directory, model_dir, series, horizon, mean):
    """One golden case in the format that `barcast verify` reads."""
    from safetensors.torch import save_file

    batch, variates, context = series.shape
    save_file(
        {
            "series": series.cpu().contiguous(),
            "padding_mask": torch.ones(series.shape, dtype=torch.int64),
            "id_mask": torch.zeros(batch, variates, dtype=torch.int64),
        },
        os.path.join(directory, "inputs.safetensors"),
    )
    save_file({"forecast_mean": mean.cpu().contiguous()}, os.path.join(directory, "expected.safetensors"))
    case = {
        "model": "toto1",
        "context_length": context,
        "horizon": horizon,
        "batch": batch,
        "variates": variates,
        "num_samples": None,
        "num_exogenous_variables": 0,
    }
    with open(os.path.join(directory, "case.json"), "w") as file:
        json.dump(case, file)
    os.symlink(os.path.abspath(model_dir), os.path.join(directory, "model"))


def verify(arguments, directory, precision, tolerance):
    """(passed, worst, average) deviation of Barcast's forecast from the case's, in units of the series' scale."""
    command = [arguments.barcast, "verify", directory, "--device", "cuda", "--precision", precision, "--tolerance", f"{tolerance:g}"]
    result = subprocess.run(command, capture_output=True, text=True)
    figures = re.search(r"forecast_mean +(\S+) of the series' scale, (\S+) on average", result.stdout)
    if not figures:
        raise RuntimeError(result.stdout + result.stderr)
    return result.returncode == 0, float(figures[1]), float(figures[2])


def check_agreement(arguments, model, batch, context, horizon):
    series = seeded_series(batch, context, "cuda")
    expected = official_mean(model, series, horizon, bf16=False)
    deviation = (official_mean(model, series, horizon, bf16=True) - expected).abs() / series.std(-1, keepdim=True)
    with tempfile.TemporaryDirectory() as directory:
        write_case(directory, arguments.model, series, horizon, expected)
        agrees, worst, average = verify(arguments, directory, "fp32", 1e-4)
        print(f"  fp32 against the official fp32: {worst:.1e} at worst, {average:.1e} on average: {'agrees' if agrees else 'DEVIATES'}")
        _, worst, average = verify(arguments, directory, "bf16", 1)
    official_worst, official_average = deviation.max().item(), deviation.mean().item()
    no_larger = average <= official_average
    print(f"  bf16 against the official fp32: {worst:.2e} at worst, {average:.2e} on average")
    print(f"  official bf16:                  {official_worst:.2e} at worst, {official_average:.2e} on average")
    return agrees and no_larger


def barcast_times(arguments, case):
    batch, context, horizon, samples = case
    times = {}
    for precision in ("fp32", "bf16"):
        command = [arguments.barcast, "bench", "engine", "--model", arguments.model, "--json", "--precision", precision]
        command += ["--batch", str(batch), "--context", str(context), "--horizon", str(horizon), "--samples", str(samples)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            print(f"  barcast {precision}: {result.stderr.strip()}")
            continue
        times[precision] = json.loads(result.stdout.splitlines()[-1])
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", required=True)
    parser.add_argument("--barcast", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", default="1:512:64:0,1:512:64:256,1:512:336:256,512:512:64:0")
    parser.add_argument("--seconds", type=float, default=2, help="time given to each measurement")
    parser.add_argument("--compile", action="store_true", help="also torch.compile(mode='reduce-overhead') at batch 1")
    arguments = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = False
    model = load_official(arguments.official, arguments.model, "cuda")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    ok = check_agreement(arguments, model, 64, 512, 336)
    for text in arguments.cases.split(","):
        case = tuple(int(part) for part in text.split(":"))
        batch, context, horizon, samples = case
        print(f"batch {batch}, context {context}, horizon {horizon}, samples {samples}")
        series = seeded_series(batch, context, "cuda")
        with torch.no_grad():
            official = official_times(model, series, horizon, samples, arguments.seconds, arguments.compile and batch == 1)
        del series
        torch.cuda.empty_cache()
        ours = barcast_times(arguments, case)
        best = min(value for name, value in official.items() if name != "compile, first call")
        for name, value in official.items():
            print(f"  official {name:20s} {value:10.3f} ms")
        for precision, line in ours.items():
            print(f"  barcast  {precision:20s} {line['wall_ms_p50']:10.3f} ms   {best / line['wall_ms_p50']:8.1f} x the best official")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
