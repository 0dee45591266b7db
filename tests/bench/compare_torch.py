#!/usr/bin/env python3
"""Runs the official PyTorch implementation of a model beside Barcast, on one checkpoint and the same inputs in the same run: checks that both
agree, then times both and prints the ratios.

    tests/bench/compare_torch.py --official DIR --barcast build/bin/barcast --model CHECKPOINT [--cases 1:512:64:256,...]

DIR holds the official package; the checkpoint's config.json tells which one, and official/FAMILY.py what it must look like. A case is
batch:context:horizon:samples. Agreement: the official fp32 forecast becomes a golden case that `barcast verify` must reproduce in fp32 within
1e-4 of the series' scale; in bf16 its average deviation from it may be no larger than the official model's own in bf16. Developers' tool; needs
PyTorch and a GPU.

A family is a module in official/:

    NAME, CASES, AGREEMENT (a case), RESULT          as verify names the model; what is timed; what is compared; the tensor that is compared
    PARAMETERS                                       where it has any: what else case.json says
    matches(config)                                  is this config.json of that family?
    load(path, model_dir, device)                    the official model, its package found in path
    forecaster(model, series, horizon, samples)      a function that forecasts; series [batch, 1, context]
    compile(model)                                   compiles what users compile; returns a function that undoes it
    inputs(...), expected(...)                       arguments as of forecaster: the tensors of a golden case
"""
import argparse
import importlib
import json
import os
import pkgutil
import re
import statistics
import subprocess
import sys
import tempfile
import time

import torch

import official


def family_of(model_dir):
    with open(os.path.join(model_dir, "config.json")) as file:
        config = json.load(file)
    for module in pkgutil.iter_modules(official.__path__):
        family = importlib.import_module(f"official.{module.name}")
        if family.matches(config):
            return family
    sys.exit(f"{model_dir}: config.json is of no family in {official.__path__[0]}")


def seeded_series(batch, context, device):
    """Random walks with a little seasonality, [batch, 1, context], seeded: inputs that look like prices."""
    generator = torch.Generator().manual_seed(20261121)
    steps = torch.randn(batch, 1, context, generator=generator) * 0.01
    phase = torch.arange(context) * (2 * torch.pi / 48)
    series = 100 * torch.exp(steps.cumsum(-1)) + torch.sin(phase)
    return series.float().to(device)


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


def compiled_times(family, model, forecaster_arguments, seconds):
    times = {}
    undo = family.compile(model)
    try:
        forecast = family.forecaster(model, *forecaster_arguments)
        start = time.perf_counter()
        forecast()
        torch.cuda.synchronize()
        times["compile, first call"] = (time.perf_counter() - start) * 1e3
        times["compiled fp32"] = milliseconds(forecast, seconds)
    except Exception as failure:  # what users meet: skipped graphs, recompile limits, overwritten outputs
        print(f"  torch.compile failed: {str(failure).splitlines()[0][:120]}")
    finally:
        undo()
        torch.compiler.reset()
    return times


def official_times(family, model, forecaster_arguments, seconds, compiled):
    forecast = family.forecaster(model, *forecaster_arguments)
    times = {"eager fp32": milliseconds(forecast, seconds)}
    with torch.autocast("cuda", dtype=torch.bfloat16):
        times["eager bf16"] = milliseconds(forecast, seconds)
    return times | (compiled_times(family, model, forecaster_arguments, seconds) if compiled else {})


def write_case(directory, family, model_dir, inputs, expected):
    """One golden case in the format that `barcast verify` reads."""
    from safetensors.torch import save_file

    for name, tensors in ("inputs", inputs), ("expected", expected):
        dense = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
        save_file(dense, os.path.join(directory, f"{name}.safetensors"))
    with open(os.path.join(directory, "case.json"), "w") as file:
        json.dump({"model": family.NAME, "description": "made by compare_torch.py"} | getattr(family, "PARAMETERS", {}), file)
    os.symlink(os.path.abspath(model_dir), os.path.join(directory, "model"))


def verify(arguments, family, directory, precision, tolerance):
    """(passed, worst, average) deviation of Barcast's forecast from the case's, in units of the series' scale."""
    command = [arguments.barcast, "verify", directory, "--device", "cuda", "--precision", precision, "--tolerance", f"{tolerance:g}"]
    result = subprocess.run(command, capture_output=True, text=True)
    figures = re.search(rf" {family.RESULT} +(\S+) of the series' scale, (\S+) on average", result.stdout)
    if not figures:
        raise RuntimeError(result.stdout + result.stderr)
    return result.returncode == 0, float(figures[1]), float(figures[2])


def check_agreement(arguments, family, model):
    batch, context, horizon, samples = family.AGREEMENT
    series = seeded_series(batch, context, "cuda")
    inputs = family.inputs(model, series, horizon, samples)
    expected = family.expected(model, series, horizon, samples)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        rounded = family.expected(model, series, horizon, samples)
    deviation = (rounded[family.RESULT] - expected[family.RESULT]).abs() / series.std(-1, keepdim=True)
    with tempfile.TemporaryDirectory() as directory:
        write_case(directory, family, arguments.model, inputs, expected)
        agrees, worst, average = verify(arguments, family, directory, "fp32", 1e-4)
        print(f"  fp32 against the official fp32: {worst:.1e} at worst, {average:.1e} on average: {'agrees' if agrees else 'DEVIATES'}")
        _, worst, average = verify(arguments, family, directory, "bf16", 1)
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
    parser.add_argument("--cases", help="the family's own ones when left out")
    parser.add_argument("--seconds", type=float, default=2, help="time given to each measurement")
    parser.add_argument("--compile", action="store_true", help="also torch.compile(mode='reduce-overhead') at batch 1")
    arguments = parser.parse_args()

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_grad_enabled(False)
    family = family_of(arguments.model)
    model = family.load(arguments.official, arguments.model, "cuda")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    ok = check_agreement(arguments, family, model)
    for text in (arguments.cases or family.CASES).split(","):
        case = tuple(int(part) for part in text.split(":"))
        batch, context, horizon, samples = case
        print(f"batch {batch}, context {context}, horizon {horizon}, samples {samples}")
        series = seeded_series(batch, context, "cuda")
        times = official_times(family, model, (series, horizon, samples), arguments.seconds, arguments.compile and batch == 1)
        del series
        torch.cuda.empty_cache()
        ours = barcast_times(arguments, case)
        best = min(value for name, value in times.items() if name != "compile, first call")
        for name, value in times.items():
            print(f"  official {name:20s} {value:10.3f} ms")
        for precision, line in ours.items():
            print(f"  barcast  {precision:20s} {line['wall_ms_p50']:10.3f} ms   {best / line['wall_ms_p50']:8.1f} x the best official")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
