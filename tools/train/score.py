"""What a model's quantiles are worth on real bars, beside three volatility models: the judge that chooses between recipes.

    python3 score.py --model FOLDER --bars FOLDER [--device cuda]

Closes of every CSV file, rolling origins, a context of 512 bars, steps 1 to 24. The loss is the weighted quantile loss of nine deciles: twice the sum
of the pinball losses over the sum of the absolute closes. Baselines see the same windows:
    naive   a random walk in logs with the deviation of all changes of the window
    ewma    the same with RiskMetrics' exponentially weighted variance, factor 0.94
    garch   GARCH(1,1), fitted to each window by Gaussian likelihood over a grid, its long-run variance that of the window
"""
import argparse
import csv
import glob
import json
import os

import torch

import checkpoint
import model as toto

DECILES = [i / 10 for i in range(1, 10)]
CONTEXT, HORIZON, DRAWS = 512, 24, 2000
SHOWN = (1, 5, 24)


def read_closes(folder):
    """File name -> closes, float64."""
    bars = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.csv"))):
        with open(path) as file:
            rows = csv.DictReader(file)
            bars[os.path.basename(path)[:-4]] = torch.tensor([float(row["close"]) for row in rows], dtype=torch.float64)
    return bars


def windows(closes, step, horizon):
    """contexts [N,512] and what followed [N,horizon]."""
    cut = closes.unfold(0, CONTEXT + horizon, step)
    return cut[:, :CONTEXT], cut[:, CONTEXT:]


# ---- baselines: the variance of each of the next bars [N,horizon] -------------------------------------------------------------------


def naive_variance(returns, horizon):
    return (returns**2).mean(1, keepdim=True).expand(-1, horizon)


def ewma_variance(returns, horizon):
    weights = 0.94 ** torch.arange(returns.shape[1] - 1, -1, -1, dtype=returns.dtype, device=returns.device)
    return ((returns**2) @ weights / weights.sum())[:, None].expand(-1, horizon)


def garch_variance(returns, horizon):
    grid = [(a, p) for a in (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3) for p in (0.5, 0.8, 0.9, 0.94, 0.96, 0.975, 0.985, 0.993, 0.998) if a < p]
    alpha, persistence = torch.tensor(grid, dtype=returns.dtype, device=returns.device).T
    long_run = (returns**2).mean(1, keepdim=True)
    squares = returns**2 / long_run
    h, cost = torch.ones(len(returns), len(grid), dtype=returns.dtype, device=returns.device), 0
    for t in range(returns.shape[1]):
        now = squares[:, t : t + 1]
        cost = cost + torch.log(h) + now / h
        h = 1 - persistence + alpha * now + (persistence - alpha) * h
    best = cost.argmin(1)
    ahead = torch.arange(horizon, dtype=returns.dtype, device=returns.device)
    return long_run * (1 + persistence[best][:, None] ** ahead * (h.gather(1, best[:, None]) - 1))


BASELINES = {"naive": naive_variance, "ewma": ewma_variance, "garch": garch_variance}


def baseline_quantiles(variance_of, contexts, horizon):
    """[N,9,horizon]: lognormal around the last close."""
    returns = torch.log(contexts[:, 1:] / contexts[:, :-1])
    deviation = torch.sqrt(variance_of(returns, horizon).cumsum(1))
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(DECILES, dtype=torch.float64)).to(contexts.device)
    return contexts[:, -1, None, None] * torch.exp(z[:, None] * deviation[:, None])


# ---- the model ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def model_quantiles(model, contexts, horizon):
    """[N,9,horizon], from 2000 draws of the first patch."""
    levels = torch.tensor(DECILES, dtype=torch.float64, device=contexts.device) * (DRAWS - 1)
    low, part = levels.long(), (levels - levels.long())[:, None, None]
    quantiles = []
    for chunk in contexts.split(256):
        values = chunk[:, None]
        mixture, loc, scale = model(values, torch.ones_like(values, dtype=torch.bool), last_only=True)
        draws = mixture.draw(DRAWS)[:, :, 0, 0, :horizon].sort(0).values.double()  # [draws,N,horizon]
        cut = draws[low] * (1 - part) + draws[low + 1] * part
        quantiles.append((loc[:, 0] + scale[:, 0] * cut).transpose(0, 1))
    return torch.cat(quantiles)


# ---- figures ------------------------------------------------------------------------------------------------------------------------


def figures(quantiles, targets):
    """Weighted quantile loss and coverage of the 80 % interval, of all steps together and of each."""
    levels = torch.tensor(DECILES, dtype=torch.float64, device=targets.device)[:, None]
    error = targets[:, None] - quantiles
    pinball = torch.maximum(levels * error, (levels - 1) * error).mean(1)  # [N,horizon]
    inside = ((targets >= quantiles[:, 0]) & (targets <= quantiles[:, -1])).double()
    return {
        "loss": (2 * pinball.sum() / targets.abs().sum()).item(),
        "loss_by_step": (2 * pinball.sum(0) / targets.abs().sum(0)).tolist(),
        "coverage": inside.mean().item(),
        "coverage_by_step": inside.mean(0).tolist(),
    }


def compare(model, folder, device, step=2):
    """symbol -> forecaster -> figures, at the steps that one patch reaches."""
    horizon, table = min(HORIZON, model.shape.patch), {}
    for symbol, closes in read_closes(folder).items():
        contexts, targets = windows(closes.to(device), step, horizon)
        table[symbol] = {name: figures(baseline_quantiles(variance, contexts, horizon), targets) for name, variance in BASELINES.items()}
        table[symbol]["model"] = figures(model_quantiles(model, contexts, horizon), targets)
    return table


def ratio(table, baseline, step=None):
    """The model's loss over a baseline's, averaged over symbols; of one step or of all."""
    loss = (lambda f: f["loss"]) if step is None else (lambda f: f["loss_by_step"][step - 1])
    return sum(loss(row["model"]) / loss(row[baseline]) for row in table.values()) / len(table)


def coverage(table, step=None):
    inside = [row["model"]["coverage"] if step is None else row["model"]["coverage_by_step"][step - 1] for row in table.values()]
    return sum(inside) / len(inside)


def summary(table):
    steps = [s for s in SHOWN if s <= len(next(iter(table.values()))["model"]["loss_by_step"])]
    result = {f"over_{b}": ratio(table, b) for b in BASELINES}
    result |= {f"over_{b}_step_{s}": ratio(table, b, s) for b in BASELINES for s in steps}
    result |= {"coverage": coverage(table)} | {f"coverage_step_{s}": coverage(table, s) for s in steps}
    return result


def describe(table):
    lines = [f"{'symbol':<14}{'model':>9}" + "".join(f"{'/' + b:>9}" for b in BASELINES) + f"{'cover':>8}" + "".join(f"{'@' + str(s):>7}" for s in SHOWN)]
    for symbol, row in table.items():
        own = row["model"]
        by_step = own["coverage_by_step"]
        lines.append(
            f"{symbol:<14}{own['loss']:9.5f}"
            + "".join(f"{own['loss'] / row[b]['loss']:9.4f}" for b in BASELINES)
            + f"{own['coverage']:8.3f}"
            + "".join(f"{by_step[s - 1]:7.3f}" for s in SHOWN if s <= len(by_step))
        )
    s = summary(table)
    lines.append(f"{'average':<14}{'':>9}" + "".join(f"{s['over_' + b]:9.4f}" for b in BASELINES) + f"{s['coverage']:8.3f}")
    for step in (k for k in SHOWN if f"coverage_step_{k}" in s):
        lines.append(f"step {step:<3} over naive, ewma, garch: " + " ".join(f"{s[f'over_{b}_step_{step}']:.4f}" for b in BASELINES))
    return "\n".join(lines)


def load_model(folder, device):
    fields, tensors = checkpoint.load(folder)
    model = toto.Toto(toto.Shape(**fields))
    model.load_state_dict(tensors)
    return model.to(device).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bars", required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="write all figures there")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    table = compare(load_model(arguments.model, arguments.device), arguments.bars, arguments.device)
    print(describe(table))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
