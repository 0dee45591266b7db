"""Toto 1.0 in PyTorch, for training: gpuworker/model/toto1.c describes the architecture, and the names of the parameters are the published ones.

Letters of shapes: B series, V variates, T tokens, P patch, D width, H heads, d head size, K mixture components.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

NORM_EPS, SCALE_FLOOR, ROPE_BASE, XPOS_BASE = 1e-8, 0.1, 10000.0, 512.0


@dataclass
class Shape:
    patch: int = 32
    width: int = 192
    layers: int = 6
    heads: int = 6
    hidden: int = 512
    components: int = 8
    space_every: int = 6


# ---- scaling ----------------------------------------------------------------------------------------------------------------------


def causal_scale(values, mask, patch):
    """loc and scale [B,V,T] of each patch, from all observed values up to its end: mean, and sqrt(variance + 0.1) with n - 1 in the variance.
    Sums of distances from the first observed value, in float64, stand for the published running update: they lose nothing at prices' precision."""
    series = values.double()
    first = torch.gather(series, -1, mask.to(torch.uint8).argmax(-1, keepdim=True))
    distance = torch.where(mask, series - first, torch.zeros_like(series)).unflatten(-1, (-1, patch))
    count = mask.double().unflatten(-1, (-1, patch)).sum(-1).cumsum(-1)
    total, squares = distance.sum(-1).cumsum(-1), (distance * distance).sum(-1).cumsum(-1)
    mean = total / count.clamp_min(1)
    variance = (squares - total * mean).clamp_min(0) / (count - 1).clamp_min(1)
    return mean + torch.where(count > 0, first, torch.zeros_like(first)), torch.sqrt(variance + SCALE_FLOOR)


# ---- layers -----------------------------------------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + NORM_EPS) * self.scale


class Rotary(nn.Module):
    """Rotation of interleaved pairs with xPos scales. The scales of a pair differ: s_j depends on j mod d/2, the angle on j // 2."""

    def __init__(self, size):
        super().__init__()
        element = torch.arange(size, dtype=torch.float64)
        self.register_buffer("rate", ROPE_BASE ** (-2 * (element // 2) / size), persistent=False)
        self.register_buffer("stretch", (2 * (element % (size // 2)) + 0.4 * size) / (1.4 * size), persistent=False)

    def forward(self, q, k):
        """[rows,H,T,d] each, turned by the token's position."""
        position = torch.arange(q.shape[-2], dtype=torch.float64, device=q.device)
        angle = position[:, None] * self.rate
        power = ((position - (q.shape[-2] - 1) // 2) / XPOS_BASE)[:, None]
        cos, sin, stretch = angle.cos(), angle.sin(), self.stretch**power
        turn = lambda x, by: x * (cos * by).to(x.dtype) + quarter(x) * (sin * by).to(x.dtype)
        return turn(q, stretch), turn(k, 1 / stretch)


def quarter(x):
    """(x0, x1) -> (-x1, x0) for each pair."""
    pairs = x.unflatten(-1, (-1, 2))
    return torch.stack((-pairs[..., 1], pairs[..., 0]), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self, shape, space):
        super().__init__()
        self.heads, self.space = shape.heads, space
        self.wQKV = nn.Linear(shape.width, 3 * shape.width)
        self.wO = nn.Linear(shape.width, shape.width)

    def forward(self, x, rotary):
        """x [B,V,T,D]. Time-wise and causal within a variate, or space-wise: all variates of a series at the same time."""
        if self.space:
            x = x.transpose(1, 2)
        lead, tokens = x.shape[:2], x.shape[2]
        packed = self.wQKV(x).reshape(lead[0] * lead[1], tokens, 3, -1, self.heads)  # (qkv, d, H): heads vary fastest
        q, k, v = packed.permute(2, 0, 4, 1, 3)
        if self.space:
            mixed = v if tokens == 1 else F.scaled_dot_product_attention(q, k, v)
        else:
            q, k = rotary(q, k)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = self.wO(mixed.transpose(1, 2).reshape(*lead, tokens, -1))  # (H, d)
        return mixed.transpose(1, 2) if self.space else mixed


class SwiGLU(nn.Module):
    def forward(self, x):
        gate, value = x.chunk(2, -1)
        return F.silu(gate) * value


class Layer(nn.Module):
    def __init__(self, shape, space):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(shape.width), RMSNorm(shape.width)
        self.attention = Attention(shape, space)
        self.mlp = nn.Sequential(nn.Linear(shape.width, 2 * shape.hidden), SwiGLU(), nn.Linear(shape.hidden, shape.width))

    def forward(self, x, rotary):
        x = x + self.attention(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


class Heads(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.df = nn.Linear(shape.width, shape.components)
        self.loc_proj = nn.Linear(shape.width, shape.components)
        self.scale_proj = nn.Linear(shape.width, shape.components)
        self.mixture_weights = nn.Linear(shape.width, shape.components)


class Backbone(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"projection": nn.Linear(shape.patch, shape.width)})
        layers = [Layer(shape, (i + 1) % shape.space_every == 0) for i in range(shape.layers)]
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})
        self.unembed = nn.Linear(shape.width, shape.patch * shape.width)
        self.output_distribution = Heads(shape)


@dataclass
class Mixture:
    """Student-t mixtures, [..., K] each, in units of a patch's scale."""

    df: torch.Tensor
    loc: torch.Tensor
    scale: torch.Tensor
    log_weight: torch.Tensor

    def log_prob(self, y):
        df, half = self.df, 0.5 * (self.df + 1)
        z = (y[..., None] - self.loc) / self.scale
        log_t = torch.lgamma(half) - torch.lgamma(0.5 * df) - 0.5 * torch.log(math.pi * df) - torch.log(self.scale)
        return torch.logsumexp(self.log_weight + log_t - half * torch.log1p(z * z / df), -1)

    def draw(self, count):
        """[count, ...]"""
        size = (count, *self.loc.shape[:-1])
        pick = torch.distributions.Categorical(logits=self.log_weight).sample((count,))[..., None]
        chosen = [p.expand(*size, -1).gather(-1, pick)[..., 0] for p in (self.df, self.loc, self.scale)]
        chi2 = 2 * torch._standard_gamma(0.5 * chosen[0])
        return chosen[1] + chosen[2] * torch.randn(size, device=self.loc.device) * torch.sqrt(chosen[0] / chi2)


class Toto(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        self.rotary = Rotary(shape.width // shape.heads)

    def head(self):
        """Unembedding and the four heads are linear with nothing between them: one matrix [P·4K, D] and its bias."""
        heads = self.model.output_distribution
        parts = (heads.df, heads.loc_proj, heads.scale_proj, heads.mixture_weights)
        weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        unembed = self.model.unembed.weight.unflatten(0, (self.shape.patch, -1))
        unembed_bias = self.model.unembed.bias.unflatten(0, (self.shape.patch, -1))
        return torch.matmul(weight, unembed).flatten(0, 1), (unembed_bias @ weight.T + bias).flatten()

    def forward(self, values, mask, last_only=False):
        """values, mask [B,V,T·P] -> the mixtures of the patch that follows each token [B,V,T,P,K] (or the last one alone, T = 1), and
        loc and scale [B,V,T] of the tokens. The layers run in bfloat16 on a GPU; the residual stream, the embedding and the head do not: the
        last value passes through them, and a bar's move is a small part of the scale."""
        loc, scale = causal_scale(values, mask, self.shape.patch)
        patches = torch.where(mask, values, torch.zeros_like(values)).double().unflatten(-1, (-1, self.shape.patch))
        x = self.model.patch_embed["projection"](((patches - loc[..., None]) / scale[..., None]).float())
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=values.is_cuda):
            for layer in self.model.transformer["layers"]:
                x = layer(x, self.rotary)
        if last_only:
            x, loc, scale = x[:, :, -1:], loc[..., -1:], scale[..., -1:]
        weight, bias = self.head()
        out = F.linear(x.float(), weight, bias).unflatten(-1, (self.shape.patch, 4, self.shape.components))
        df, place, spread, logits = out.unbind(-2)
        least = torch.finfo(torch.float32).eps
        mixture = Mixture(2 + F.softplus(df).clamp_min(least), place, F.softplus(spread).clamp_min(least), F.log_softmax(logits, -1))
        return mixture, loc, scale


# ---- first weights ----------------------------------------------------------------------------------------------------------------

LEVEL, GROWTH = 0, 1  # channels
DIFFERENCE_GAIN, FIRST_SPREAD = 6.0, 0.06


@torch.no_grad()
def start(model, passing):
    """Random weights. `passing` starts from a random walk, as gpuworker/model/toto1_create.c does: the last value of a patch travels in a channel
    of its own to every location, the scales open with the square root of the step, and differences of neighbours come in enlarged."""
    shape, parts = model.shape, model.model
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 2:
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    for layer in parts.transformer["layers"]:
        for last in (layer.attention.wO, layer.mlp[2]):
            last.weight *= (2 * shape.layers) ** -0.5
            if passing:
                last.weight[LEVEL] = 0
    heads = parts.output_distribution
    heads.df.bias.fill_(2.0)
    for part in (heads.df, heads.loc_proj, heads.scale_proj, heads.mixture_weights):
        part.weight *= 0.1
    heads.scale_proj.bias.copy_(torch.linspace(-1.0, 1.0, shape.components) + math.log(FIRST_SPREAD))
    if not passing:
        return
    embed = parts.patch_embed["projection"]
    embed.weight[LEVEL] = 0
    embed.weight[LEVEL, -1] = 1
    for i in range(1, shape.patch):
        embed.weight[GROWTH + i] = 0
        embed.weight[GROWTH + i, i - 1], embed.weight[GROWTH + i, i] = -DIFFERENCE_GAIN, DIFFERENCE_GAIN
    unembed, unembed_bias = (p.view(shape.patch, shape.width, -1) for p in (parts.unembed.weight, parts.unembed.bias))
    unembed[:, [LEVEL, GROWTH]] = 0
    unembed[:, LEVEL, LEVEL] = 1
    unembed_bias[:, GROWTH, 0] = 0.5 * torch.log(torch.arange(1, shape.patch + 1.0))
    heads.loc_proj.weight *= 0.1
    heads.loc_proj.weight[:, LEVEL] = 1
    heads.scale_proj.weight[:, LEVEL] = 0
    heads.scale_proj.weight[:, GROWTH] = 1
