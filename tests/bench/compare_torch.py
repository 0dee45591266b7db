#!/usr/bin/env python3
"""Runs the official PyTorch implementation of a model beside Barcast, on one checkpoint and the same inputs in the same run: checks that both
agree, then times both and prints the ratios.

    tests/bench/compare_torch.py --official DIR --barcast build/bin/barcast --model CHECKPOINT [--cases 1:512:64:256,...]

DIR holds the official package; the checkpoint's config.json tells which one, and official/FAMILY.py what it must look like. A case is
batch:context:horizon:samples. Agreement: the official fp32 forecast becomes a golden case that `barcast verify` must reproduce in fp32 within
1e-4 of the series' scale; in bf16 its average deviation from it may be no larger than the official model's own in bf16, give or take chance: two
standard errors of that average over the series. Developers' tool; needs PyTorch, safetensors and a GPU, and what the family's text names.

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
import contextlib
import importlib
import json
import os
import pkgutil
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import torch

import official


def family_of(model_dir):
    try:
        with open(os.path.join(model_dir, "config.json")) as file:
            config = json.load(file)
    except OSError as failure:
        sys.exit(f"{failure.filename}: {failure.strerror}")
    for module in pkgutil.iter_modules(official.__path__):
        family = importlib.import_module(f"official.{module.name}")
        if family.matches(config):
            return family
    sys.exit(f"{model_dir}: config.json is of no family in {official.__path__[0]}")


def load(family, arguments):
    try:
        return family.load(arguments.official, arguments.model, "cuda")
    except ImportError as failure:
        sys.exit(f"{failure}\n\n{family.__doc__}")


def seeded_series(batch, context, device):
    """Random walks with a little seasonality, [batch, 1, context], seeded: inputs that look like prices."""
    generator = torch.Generator().manual_seed(20261121)
    steps = torch.randn(batch, 1, context, generator=generator) * 0.01
    phase = torch.arange(context) * (2 * torch.pi / 48)
    series = 100 * torch.exp(steps.cumsum(-1)) + torch.sin(phase)
    return series.float().to(device)


def call_milliseconds(call):
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def milliseconds(call, seconds):
    """Median wall time of `call` in ms after one warm-up, device included: of 3 to 50 calls, or of one that alone takes longer than `seconds`."""
    call_milliseconds(call)
    times, end = [call_milliseconds(call)], time.monotonic() + seconds
    while len(times) < 50 and times[0] < seconds * 1e3 and (len(times) < 3 or time.monotonic() < end):
        times.append(call_milliseconds(call))
    return statistics.median(times)


def precisions():
    """The official code computes in bf16 under autocast, with fp32 weights, as its users run it."""
    yield "fp32", contextlib.nullcontext()
    yield "bf16", torch.autocast("cuda", dtype=torch.bfloat16)


def compiled_times(family, model, forecaster_arguments, seconds):
    times = {}
    for precision, context in precisions():
        undo = family.compile(model)
        try:
            with context:
                forecast = family.forecaster(model, *forecaster_arguments)
                print(f"  torch.compile, {precision}: {call_milliseconds(forecast):.0f} ms for the first call")
                times[f"compiled {precision}"] = milliseconds(forecast, seconds)
        except Exception as failure:  # what users meet: skipped graphs, recompile limits, overwritten outputs
            print(f"  torch.compile, {precision}: {traceback.format_exception_only(failure)[-1].splitlines()[0][:200]}")
        finally:
            undo()
            torch.compiler.reset()
    return times


def official_times(family, model, forecaster_arguments, seconds, compiled):
    forecast = family.forecaster(model, *forecaster_arguments)
    times = {}
    for precision, context in precisions():
        with context:
            times[f"eager {precision}"] = milliseconds(forecast, seconds)
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


def standard_error(deviation, batch):
    """Of the average over the series, whichever dimension they are; one series alone tells nothing."""
    per_series = deviation.movedim(deviation.shape.index(batch), 0).flatten(1).mean(1)
    return per_series.std().item() / batch**0.5 if batch > 1 else 0


def check_agreement(arguments, family, model):
    batch, context, horizon, samples = family.AGREEMENT
    series = seeded_series(batch, context, "cuda")
    inputs = family.inputs(model, series, horizon, samples)
    expected = family.expected(model, series, horizon, samples)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        rounded = family.expected(model, series, horizon, samples)
    deviation = (rounded[family.RESULT] - expected[family.RESULT]).abs().cpu() / series.std(-1, keepdim=True).cpu()
    with tempfile.TemporaryDirectory() as directory:
        write_case(directory, family, arguments.model, inputs, expected)
        agrees, worst, average = verify(arguments, family, directory, "fp32", 1e-4)
        print(f"  fp32 against the official fp32: {worst:.1e} at worst, {average:.1e} on average: {'agrees' if agrees else 'DEVIATES'}")
        _, worst, average = verify(arguments, family, directory, "bf16", 1)
    official_worst, official_average = deviation.max().item(), deviation.mean().item()
    chance = 2 * standard_error(deviation, batch)
    no_larger = average <= official_average + chance
    print(f"  bf16 against the official fp32: {worst:.1e} at worst, {average:.1e} on average: {'no larger' if no_larger else 'LARGER'}")
    print(f"  official bf16:                  {official_worst:.1e} at worst, {official_average:.1e} on average, give or take {chance:.0e}")
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
    parser.add_argument("--compile", action="store_true", help="also torch.compile(mode='reduce-overhead') at batch 1, which takes a minute a case")
    arguments = parser.parse_args()

    if shutil.which(arguments.barcast) is None:
        parser.error(f"{arguments.barcast} is no program")
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_grad_enabled(False)
    family = family_of(arguments.model)
    model = load(family, arguments)
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
        best = min(times.values())
        for name, value in times.items():
            print(f"  official {name:20s} {value:10.3f} ms")
        for precision, line in ours.items():
            print(f"  barcast  {precision:20s} {line['wall_ms_p50']:10.3f} ms   {best / line['wall_ms_p50']:8.1f} x the best official")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
