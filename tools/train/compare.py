"""Does Barcast compute what the model that was trained computes? Runs both on the newest bars of every CSV file.

    python3 compare.py --model FOLDER --bars FOLDER --barcast build/bin/barcast

Means must agree to rounding; deciles, drawn by Barcast, within 4.5 standard errors of so many draws. Fails when one does not.
"""
import argparse
import json
import os
import subprocess
import sys

import torch

import score

HORIZON, DRAWS = 24, 40000
MEAN_BOUND, ERRORS = 1e-5, 4.5


def barcast(arguments, path, samples):
    command = [arguments.barcast, "forecast", "--input", path, "--model", arguments.model, "--context", str(score.CONTEXT), "--horizon", str(HORIZON)]
    command += ["--format", "json", "--device", "cpu", "--samples", str(samples), "--quantiles", ",".join(map(str, score.DECILES))]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def deciles_of(forecast):
    return torch.stack([torch.tensor(forecast["quantiles"][str(level)], dtype=torch.float64) for level in score.DECILES])


@torch.no_grad()
def reference(model, closes):
    """mean [H], and of DRAWS draws the deciles [9,H] and their standard errors: the density is the slope of the quantiles around a level."""
    window = closes[-score.CONTEXT :].float()[None, None]
    mixture, loc, scale = model(window, torch.ones_like(window, dtype=torch.bool), last_only=True)
    place = lambda x: (loc[0, 0, 0] + scale[0, 0, 0] * x.double())
    mean = place((mixture.log_weight.exp() * mixture.loc).sum(-1)[0, 0, 0, :HORIZON])
    draws = place(torch.cat([mixture.draw(DRAWS // 8)[:, 0, 0, 0, :HORIZON] for _ in range(8)]).sort(0).values)
    level = torch.tensor(score.DECILES, dtype=torch.float64)[:, None]
    at = lambda q: draws[(q * (DRAWS - 1)).long().squeeze(1)]
    error = torch.sqrt(level * (1 - level) / DRAWS) * (at(level + 0.02) - at(level - 0.02)) / 0.04
    return mean, at(level), error, scale[0, 0, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "bars", "barcast"):
        parser.add_argument("--" + name, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, failed = score.load_model(arguments.model, "cpu"), False
    for symbol, closes in score.read_closes(arguments.bars).items():
        path = os.path.join(arguments.bars, symbol + ".csv")
        mean, quantiles, error, scale = reference(model, closes)
        off = (torch.tensor(barcast(arguments, path, 0)["mean"], dtype=torch.float64) - mean).abs().max() / scale
        errors = ((deciles_of(barcast(arguments, path, DRAWS)) - quantiles).abs() / (error * 2**0.5)).max()
        failed |= bool(off > MEAN_BOUND or errors > ERRORS)
        print(f"{symbol:<14} mean differs by {off:.1e} scales at most, deciles by {errors:.1f} standard errors")
    sys.exit(failed)


if __name__ == "__main__":
    main()
