"""Trains the default model in pieces of a given time: every piece begins where the last one's state folder ended.

    python3 train.py --recipe level32 --state FOLDER --seconds 480 --bars FOLDER
    python3 train.py --recipe level32 --state FOLDER --seconds 480 --bars FOLDER --decay 0.6     # the last piece

The state folder holds weights.safetensors (float32), moments.safetensors (Adam's, bfloat16), state.json (counts, seeds, loss curve, scores) and
model/, the checkpoint folder of the averaged weights, in bfloat16. The bars are looked at once, at the end, to score: never to train.
"""
import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field

import torch

import checkpoint
import markets
import model as toto
import score

LENGTH = 512  # bars of context
POOL, GROUP_POOL, BATCH, GROUP = 32768, 8192, 1024, 4  # series; a fifth of the steps sees groups of 4
WARM_UP, AVERAGE, CLIP, WEIGHT_DECAY = 300, 0.999, 1.0, 0.01
HELD_OUT_SEED = 1_000_000_007
REPORT_EVERY, HELD_OUT_EVERY = 250, 2000


@dataclass
class Recipe:
    shape: toto.Shape = field(default_factory=toto.Shape)
    passing: bool = True  # start from a random walk: model.start
    general: float = 0.1  # share of series that are no market
    strength: float = 1.0  # of the changes of volatility that are not GARCH
    rate: float = 1e-3
    seed: int = 1


RECIPES = {
    "level32": Recipe(),
    "plain32": Recipe(passing=False),
    "market32": Recipe(general=0.0),
    "level64": Recipe(shape=toto.Shape(patch=64, width=160, heads=5, hidden=432)),
    "calm32": Recipe(strength=0.65),
}

# ---- data -------------------------------------------------------------------------------------------------------------------------


def batches(recipe, pool, device):
    """(number of the pool, values, targets) for ever, from a given pool on; every pool has a seed of its own."""
    length = LENGTH + recipe.shape.patch
    while True:
        seed = recipe.seed * 1_000_000 + 2 * pool
        single = markets.sample(seed, POOL, length, device, 1, recipe.general, recipe.strength)
        grouped = markets.sample(seed + 1, GROUP_POOL, length, device, GROUP, recipe.general, recipe.strength)
        pool += 1
        parts = [pair for pair in zip(*(x.split(BATCH) for x in single))]
        for i, pair in enumerate(zip(*(x.split(BATCH // GROUP) for x in grouped))):
            parts.insert(5 * i + 4, pair)
        for values, targets in parts:
            yield pool, values, targets


def hide(values, patch, generator):
    """mask: an eighth of the series begins within a patch, some miss bars here and there."""
    draw = lambda *size: torch.rand(*size, device=values.device, generator=generator)
    lead = values.shape[:2]
    begin = torch.where(draw(*lead, 1) < 0.125, torch.floor(draw(*lead, 1) * patch), torch.zeros(1, device=values.device))
    rate = torch.where(draw(*lead, 1) < 0.03, 0.15 * draw(*lead, 1), torch.zeros(1, device=values.device))
    return (torch.arange(values.shape[-1], device=values.device) >= begin) & (draw(*values.shape) >= rate)


def loss_of(model, values, targets, mask):
    """Mean negative log-likelihood of the observed bars of every next patch, in units of the scale known before it."""
    patch = model.shape.patch
    mixture, loc, scale = model(values[..., :-patch], mask[..., :-patch])
    following = targets[..., patch:].double().unflatten(-1, (-1, patch))
    y = ((following - loc[..., None]) / scale[..., None]).float()
    seen = mask[..., patch:].unflatten(-1, (-1, patch))
    return -(mixture.log_prob(y) * seen).sum() / seen.sum()


@torch.no_grad()
def held_out_loss(model, recipe, device):
    """On markets alone and without gaps, the same for every recipe of one patch length."""
    values, targets = markets.sample(HELD_OUT_SEED, 4096, LENGTH + recipe.shape.patch, device, 1, 0.0)
    pairs = zip(values.split(BATCH), targets.split(BATCH))
    return sum(loss_of(model, v, t, torch.ones_like(v, dtype=torch.bool)).item() for v, t in pairs) / math.ceil(len(values) / BATCH)


# ---- a piece ----------------------------------------------------------------------------------------------------------------------


def optimizer_of(model, recipe):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.97), eps=1e-9, fused=next(model.parameters()).is_cuda)


def resume(folder, model, optimizer):
    """The state's dictionary; weights and moments are in place."""
    path = os.path.join(folder, "state.json")
    if not os.path.exists(path):
        return {"steps": 0, "pools": 0, "pieces": [], "curve": []}
    device = next(model.parameters()).device
    with open(path) as file:
        state = json.load(file)
    model.load_state_dict(checkpoint.read_tensors(os.path.join(folder, "weights.safetensors")))
    moments = checkpoint.read_tensors(os.path.join(folder, "moments.safetensors"))
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state["steps"]), device=device),
            "exp_avg": moments["mean." + name].to(device),
            "exp_avg_sq": moments["root." + name].to(device) ** 2,
        }
    return state


def keep(folder, model, average, optimizer, state):
    os.makedirs(folder, exist_ok=True)
    moments = {}
    for name, parameter in model.named_parameters():
        moments["mean." + name] = optimizer.state[parameter]["exp_avg"]
        moments["root." + name] = optimizer.state[parameter]["exp_avg_sq"].sqrt()
    checkpoint.write_tensors(os.path.join(folder, "weights.safetensors"), model.state_dict())
    checkpoint.write_tensors(os.path.join(folder, "moments.safetensors"), moments, "BF16")
    checkpoint.save(os.path.join(folder, "model"), model.shape, average.state_dict())
    with open(os.path.join(folder, "state.json"), "w") as file:
        json.dump(state, file, indent=1)


def rate_at(recipe, steps, done, decay):
    """Warm-up, a plateau, and in the last `decay` of a piece's time a straight line to zero."""
    return recipe.rate * min(1, (steps + 1) / WARM_UP) * (min(1, (1 - done) / decay) if decay > 0 else 1)


def run_piece(name, recipe, folder, seconds, decay, device):
    torch.manual_seed(recipe.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    begin = time.monotonic()
    model = toto.Toto(recipe.shape).to(device)
    toto.start(model, recipe.passing)
    optimizer = optimizer_of(model, recipe)
    state = resume(folder, model, optimizer)
    average = toto.Toto(recipe.shape).to(device)
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    generator = torch.Generator(device=device).manual_seed(recipe.seed + 1 + state["pools"])
    first, window = state["steps"], []
    training_loss = torch.compile(loss_of, dynamic=False) if device == "cuda" else loss_of
    for pool, values, targets in batches(recipe, state["pools"], device):
        done = (time.monotonic() - begin) / seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate_at(recipe, state["steps"], done, decay)
        loss = training_loss(model, values, targets, hide(values, recipe.shape.patch, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        state["steps"] += 1
        state["pools"] = pool
        share = min(AVERAGE, (1 + state["steps"] - first) / (10 + state["steps"] - first))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - share)
        window.append(loss.detach())
        if state["steps"] % REPORT_EVERY == 0:
            entry = {"step": state["steps"], "seconds": round(time.monotonic() - begin, 1), "loss": torch.stack(window).mean().item()}
            if state["steps"] % HELD_OUT_EVERY == 0:
                entry["held_out"] = held_out_loss(average, recipe, device)
            state["curve"].append(entry)
            print(name, json.dumps(entry), flush=True)
            window = []
    steps = state["steps"] - first
    state["pieces"].append({"steps": steps, "seconds": round(time.monotonic() - begin, 1), "decay": decay, "held_out": held_out_loss(average, recipe, device)})
    return model, average, optimizer, state


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True, choices=RECIPES)
    parser.add_argument("--state", required=True, help="folder to go on from, and to leave the new state in")
    parser.add_argument("--seconds", type=float, required=True, help="of training; scoring and saving take some more")
    parser.add_argument("--decay", type=float, default=0, help="part of the time in which the rate falls to zero")
    parser.add_argument("--bars", required=True, help="folder of CSV files to score on")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.recipe]
    model, average, optimizer, state = run_piece(
        arguments.recipe, recipe, arguments.state, arguments.seconds, arguments.decay, arguments.device
    )
    state["recipe"] = {"name": arguments.recipe} | asdict(recipe)
    keep(arguments.state, model, average, optimizer, state)
    table = score.compare(score.load_model(os.path.join(arguments.state, "model"), arguments.device), arguments.bars, arguments.device)
    state["scores"] = score.summary(table)
    keep(arguments.state, model, average, optimizer, state)
    print(arguments.recipe, json.dumps(state["pieces"][-1]))
    print(score.describe(table), flush=True)


if __name__ == "__main__":
    main()
