#!/usr/bin/env python3
"""An independent Toto 1.0 in plain Python, float64, lists of lists: slow, and as close to the model's description as code gets.

    python3 tests/reference/toto1.py tests/fixtures/golden/toto1

writes small golden cases (a random checkpoint, inputs, intermediates, forecast) that the unit tests run `barcast verify` on. The cases cover what
is easy to get wrong: the order of the packed projection, xPos scales that differ within a pair and are centred on the current call, missing
values, the clamp of the scale, groups of variates, padding, known future variates, both spellings of the MLP's tensors.
"""
import json
import math
import os
import random
import struct
import sys

# ---- files ------------------------------------------------------------------------------------------------------------------------


def flatten(value):
    return [x for item in value for x in flatten(item)] if isinstance(value, list) else [value]


def shape_of(value):
    return [len(value)] + shape_of(value[0]) if isinstance(value, list) else []


def write_safetensors(path, tensors):
    """tensors: name -> nested lists; integers become I64, everything else F32."""
    header, data = {}, b""
    for name, value in tensors.items():
        flat = flatten(value)
        integer = all(isinstance(x, int) for x in flat)
        raw = struct.pack(f"<{len(flat)}{'q' if integer else 'f'}", *flat)
        header[name] = {"dtype": "I64" if integer else "F32", "shape": shape_of(value), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def single(x):
    """Rounded to float32, as it will be stored."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


# ---- small algebra ----------------------------------------------------------------------------------------------------------------


def linear(weight, bias, x):
    return [sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight, bias)]


def rms_norm(scale, x):
    root = math.sqrt(sum(v * v for v in x) / len(x) + 1e-8)
    return [v / root * s for v, s in zip(x, scale)]


def silu(x):
    return x / (1 + math.exp(-x))


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def softmax(x):
    e = [math.exp(v - max(x)) for v in x]
    return [v / sum(e) for v in e]


def add(x, y):
    return [a + b for a, b in zip(x, y)]


# ---- the model --------------------------------------------------------------------------------------------------------------------


class Toto:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.heads = config["num_heads"]
        self.head_dim = config["embed_dim"] // self.heads

    def is_space(self, layer):
        every = self.c["spacewise_every_n_layers"]
        return every > 0 and layer % every == (0 if self.c["spacewise_first"] else every - 1)

    def scale(self, series, mask, prefix):
        """Per patch loc and scale from everything observed up to the patch's end; series may be longer than the context (`prefix`)."""
        patch, minimum = self.c["patch_size"], 0.1
        seen = [x for x, m in zip(series[:prefix], mask[:prefix]) if m]
        n = max(len(seen), 1)
        mean = sum(seen) / n
        whole = math.sqrt(sum((x - mean) ** 2 for x in seen) / n + minimum)
        factor = 10 ** self.c["scale_factor_exponent"]
        locs, scales = [], []
        for end in range(patch, len(series) + 1, patch):
            seen = [x for x, m in zip(series[:end], mask[:end]) if m]
            n = max(len(seen), 1)
            loc = sum(seen) / n
            deviation = math.sqrt(sum((x - loc) ** 2 for x in seen) / max(n - 1, 1) + minimum)
            locs.append(loc)
            scales.append(min(max(deviation, minimum, whole / factor), whole * factor))
        return locs, scales

    def rotate(self, x, position, exponent):
        """Interleaved pairs turned by position, then every element stretched; the stretch vector is two halves, not pairs."""
        d = self.head_dim
        stretch = [(2 * i + 0.4 * d) / (1.4 * d) for i in range(d // 2)] * 2
        out = [0.0] * d
        for i in range(0, d, 2):
            angle = position * 10000 ** (-i / d)
            out[i] = x[i] * math.cos(angle) - x[i + 1] * math.sin(angle)
            out[i + 1] = x[i + 1] * math.cos(angle) + x[i] * math.sin(angle)
        return [v * s ** (exponent / 512) for v, s in zip(out, stretch)]

    def split(self, packed, part, head):
        """The packed projection holds (query/key/value, head_dim, heads): heads vary fastest."""
        width = self.c["embed_dim"]
        return [packed[part * width + j * self.heads + head] for j in range(self.head_dim)]

    def attend(self, query, keys, values):
        weights = softmax([sum(a * b for a, b in zip(query, key)) / math.sqrt(self.head_dim) for key in keys])
        return [sum(w * value[j] for w, value in zip(weights, values)) for j in range(self.head_dim)]

    def layer(self, index, hidden, groups, offset, cache):
        """hidden [variates][tokens][width]; tokens start at position `offset`; cache[variate][head] = (keys, values) of earlier calls."""
        w = lambda name: self.w[f"model.transformer.layers.{index}.{name}"]
        variates, tokens = len(hidden), len(hidden[0])
        packed = [[linear(w("attention.wQKV.weight"), w("attention.wQKV.bias"), rms_norm(w("norm1.scale"), x)) for x in row] for row in hidden]
        mixed = [[[] for _ in range(tokens)] for _ in range(variates)]
        centre = (offset + tokens - 1) // 2
        for head in range(self.heads):
            if self.is_space(index):
                for v in range(variates):
                    mates = [u for u in range(variates) if groups[u] == groups[v]]
                    for t in range(tokens):
                        mixed[v][t] += self.attend(self.split(packed[v][t], 0, head), [self.split(packed[u][t], 1, head) for u in mates],
                                                   [self.split(packed[u][t], 2, head) for u in mates])
            else:
                for v in range(variates):
                    keys, values = cache.setdefault((index, v, head), ([], []))
                    for t in range(tokens):
                        position = offset + t
                        keys.append(self.rotate(self.split(packed[v][t], 1, head), position, centre - position))
                        values.append(self.split(packed[v][t], 2, head))
                        query = self.rotate(self.split(packed[v][t], 0, head), position, position - centre)
                        mixed[v][t] += self.attend(query, keys, values)
        up, down = ("mlp.0.w12", "mlp.0.w3") if self.c["fused_names"] else ("mlp.0", "mlp.2")
        out = []
        for v in range(variates):
            row = []
            for t in range(tokens):
                x = add(hidden[v][t], linear(w("attention.wO.weight"), w("attention.wO.bias"), mixed[v][t]))
                both = linear(w(up + ".weight"), w(up + ".bias"), rms_norm(w("norm2.scale"), x))
                half = len(both) // 2
                gated = [silu(a) * b for a, b in zip(both[:half], both[half:])]
                row.append(add(x, linear(w(down + ".weight"), w(down + ".bias"), gated)))
            out.append(row)
        return out

    def mixture(self, features):
        head = lambda name: linear(self.w[f"model.output_distribution.{name}.weight"], self.w[f"model.output_distribution.{name}.bias"], features)
        eps = 2.0**-23
        df = [2 + max(softplus(x), eps) for x in head("df")]
        return df, head("loc_proj"), [max(softplus(x), eps) for x in head("scale_proj")], head("mixture_weights")

    def forecast(self, series, mask, groups, future, horizon):
        """One batch element: [variates][time] each. Returns the forecast and the named intermediates."""
        patch, width, variates = self.c["patch_size"], self.c["embed_dim"], len(series)
        pad = -len(series[0]) % patch
        series = [[0.0] * pad + row for row in series]
        mask = [[0] * pad + row for row in mask]
        context, cache, seen = len(series[0]), {}, {}
        steps = -(-horizon // patch)
        for step in range(steps):
            stats = [self.scale(row, m, context) for row, m in zip(series, mask)]
            offset = 0 if step == 0 else len(series[0]) // patch - 1
            scaled = [[(series[v][i] - stats[v][0][i // patch]) / stats[v][1][i // patch] for i in range(len(series[v]))] for v in range(variates)]
            hidden = [[linear(self.w["model.patch_embed.projection.weight"], self.w["model.patch_embed.projection.bias"],
                              scaled[v][t * patch:(t + 1) * patch]) for t in range(offset, len(series[v]) // patch)] for v in range(variates)]
            if step == 0:
                seen["s0.scaled_inputs"], seen["s0.patch_embed"] = scaled, hidden
                seen["s0.scaler_loc"], seen["s0.scaler_scale"] = [s[0] for s in stats], [s[1] for s in stats]
            for index in range(self.c["num_layers"]):
                hidden = self.layer(index, hidden, groups, offset, cache)
                if step == 0:
                    seen[f"s0.layer_{index}"] = hidden
                seen.setdefault(f"steps.layer_{index}", []).append([row[-1] for row in hidden])
            flat = [linear(self.w["model.unembed.weight"], self.w["model.unembed.bias"], row[-1]) for row in hidden]
            features = [[row[p * width:(p + 1) * width] for p in range(patch)] for row in flat]
            if step == 0:
                seen["s0.unembed_last"] = features
            mixtures = [[self.mixture(f) for f in row] for row in features]
            for i, name in enumerate(("df", "loc", "scale", "logits")):
                seen.setdefault(f"steps.mix_{name}", []).append([[m[i] for m in row] for row in mixtures])
            mean = []
            for v in range(variates):
                loc, scale = stats[v][0][-1], stats[v][1][-1]
                mean.append([loc + scale * sum(w * x for w, x in zip(softmax(m[3]), m[1])) for m in mixtures[v]])
            seen.setdefault("steps.out_loc", []).append([s[0][-1] for s in stats])
            seen.setdefault("steps.out_scale", []).append([s[1][-1] for s in stats])
            seen.setdefault("steps.mean", []).append([list(row) for row in mean])
            for e, row in enumerate(future):
                known = row[step * patch:(step + 1) * patch]
                mean[variates - len(future) + e] = known + [0.0] * (patch - len(known))
            series = [a + b for a, b in zip(series, mean)]
            mask = [m + [1] * patch for m in mask]
        return [row[context:context + horizon] for row in series], seen


# ---- cases ------------------------------------------------------------------------------------------------------------------------


def random_weights(config, rng):
    width, hidden, patch, k = config["embed_dim"], config["mlp_hidden_dim"], config["patch_size"], config["output_distribution_kwargs"]["k_components"]
    up, down = ("mlp.0.w12", "mlp.0.w3") if config["fused_names"] else ("mlp.0", "mlp.2")
    vector = lambda n, spread, centre=0.0: [single(centre + rng.uniform(-spread, spread)) for _ in range(n)]
    weights = {}

    def add_linear(name, out, inputs):
        weights[name + ".weight"] = [vector(inputs, math.sqrt(1.5 / inputs)) for _ in range(out)]
        weights[name + ".bias"] = vector(out, 0.2)

    add_linear("model.patch_embed.projection", width, patch)
    for i in range(config["num_layers"]):
        prefix = f"model.transformer.layers.{i}."
        weights[prefix + "norm1.scale"] = vector(width, 0.3, 1.0)
        weights[prefix + "norm2.scale"] = vector(width, 0.3, 1.0)
        add_linear(prefix + "attention.wQKV", 3 * width, width)
        add_linear(prefix + "attention.wO", width, width)
        add_linear(prefix + up, 2 * hidden, width)
        add_linear(prefix + down, width, hidden)
    add_linear("model.unembed", patch * width, width)
    for name in ("df", "loc_proj", "scale_proj", "mixture_weights"):
        add_linear("model.output_distribution." + name, k, width)
    return weights


def make_config(patch, width, heads, layers, hidden, k, every, first, exponent, fused):
    return {"patch_size": patch, "stride": patch, "embed_dim": width, "num_heads": heads, "num_layers": layers, "mlp_hidden_dim": hidden,
            "dropout": 0.1, "spacewise_every_n_layers": every, "spacewise_first": first,
            "scaler_cls": "<class 'model.scaler.CausalPatchStdMeanScaler'>",
            "output_distribution_classes": ["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
            "output_distribution_kwargs": {"k_components": k}, "stabilize_with_global": True, "scale_factor_exponent": exponent,
            "fused_names": fused}


def random_series(rng, length):
    value, row = rng.uniform(4, 8), []
    for _ in range(length):
        value += rng.gauss(0, 1)
        row.append(single(value))
    return row


def write_case(root, name, description, config, seed, batch, groups, length, horizon, exogenous, missing):
    rng = random.Random(seed)
    weights = random_weights(config, rng)
    variates = len(groups)
    series = [[random_series(rng, length) for _ in range(variates)] for _ in range(batch)]
    mask = [[[0 if rng.random() < missing else 1 for _ in range(length)] for _ in range(variates)] for _ in range(batch)]
    series = [[[x if m else 0.0 for x, m in zip(row, m_row)] for row, m_row in zip(s, m)] for s, m in zip(series, mask)]
    future = [[random_series(rng, horizon) for _ in range(exogenous)] for _ in range(batch)]
    model = Toto(config, weights)
    runs = [model.forecast(series[b], mask[b], groups, future[b], horizon) for b in range(batch)]

    expected = {"forecast_mean": [run[0] for run in runs]}
    for key in runs[0][1]:
        if key.startswith("s0."):
            expected[key] = [run[1][key] for run in runs]
        else:
            expected[key] = [[run[1][key][step] for run in runs] for step in range(len(runs[0][1][key]))]
    inputs = {"series": series, "padding_mask": mask, "id_mask": [groups] * batch}
    if exogenous:
        inputs["future_exogenous"] = future
    directory = os.path.join(root, name)
    os.makedirs(os.path.join(directory, "model"), exist_ok=True)
    write_safetensors(os.path.join(directory, "model", "model.safetensors"), weights)
    write_safetensors(os.path.join(directory, "inputs.safetensors"), inputs)
    write_safetensors(os.path.join(directory, "expected.safetensors"), expected)
    with open(os.path.join(directory, "model", "config.json"), "w") as file:
        json.dump({k: v for k, v in config.items() if k != "fused_names"}, file, indent=2)
    with open(os.path.join(directory, "case.json"), "w") as file:
        json.dump({"model": "toto1", "description": description}, file, indent=2)


if __name__ == "__main__":
    out = sys.argv[1]
    write_case(out, "groups", "two series of three variates in two groups, padded context, missing values, clamped scale, four steps",
               make_config(8, 16, 2, 4, 24, 3, 2, False, 0.05, True), 1, 2, [0, 1, 0], 45, 30, 0, 0.1)
    write_case(out, "exogenous", "one target and one known variate, space-wise layer first, unfused MLP names",
               make_config(8, 12, 3, 2, 20, 2, 2, True, 10.0, False), 2, 1, [0, 0], 32, 20, 1, 0.0)
