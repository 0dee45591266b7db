"""Synthetic markets: the only data that the default model is trained on.

Every series is made from random parameters, drawn for each series from wide priors, and everything is vectorised over series and time: there is no
loop over bars. Autoregressions, GARCH among them, are linear recurrences in time given the shocks, so a prefix scan of log2(T) passes solves them.

A market's return is

    r[t] = trend + sigma[t] · z[t] + jumps,     sigma[t] = base · exp(factors[t]) · sqrt(garch[t]) · regime[t] · session[t]

and its price the exponential of their sum, sometimes pulled back to a mean, with bid-ask bounce, rounded to ticks, at times stale. The priors cover
daily bars of shares, bars of minutes and hours with sessions, and bars of markets that never close; DAILY, INTRADAY and ALWAYS below.
"""
import math

import torch

BURN_IN = 192  # bars simulated before the first that is used: factors start in equilibrium, GARCH at its mean
DAILY, INTRADAY, ALWAYS, GENERAL = range(4)
SESSION_BARS = (7, 13, 26, 39, 48, 54, 65, 78, 130, 195, 240, 390)  # of exchanges, in bars from an hour to a minute
CLOCK_BARS = (6, 24, 48, 96, 144, 288, 720)  # of markets that never close


class Dice:
    """Seeded random numbers on a device. `per` series share a draw: those of a group."""

    def __init__(self, seed, count, device):
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.count, self.device = count, device

    def uniform(self, low=0.0, high=1.0, size=1, per=1):
        draw = torch.rand(self.count // per, size, generator=self.generator, device=self.device)
        return low + (high - low) * draw.repeat_interleave(per, 0)

    def log_uniform(self, low, high, per=1):
        return torch.exp(self.uniform(math.log(low), math.log(high), per=per))

    def chance(self, p, per=1):
        return self.uniform(per=per) < p

    def normal(self, size=1, per=1):
        return torch.randn(self.count // per, size, generator=self.generator, device=self.device).repeat_interleave(per, 0)

    def pick(self, values, per=1):
        table = torch.tensor(values, device=self.device, dtype=torch.float32)
        return table[torch.clamp((self.uniform(per=per) * len(values)).long(), max=len(values) - 1)]

    def student(self, df, size):
        """Unit variance; df [n,1] above 2."""
        gamma = torch._standard_gamma((0.5 * df).expand(self.count, size).contiguous(), generator=self.generator)
        return self.normal(size) * torch.sqrt((0.5 * df - 1) / gamma.clamp_min(1e-6))


# ---- recurrences ------------------------------------------------------------------------------------------------------------------


def decayed(shocks, keep):
    """x[t] = keep · x[t-1] + shocks[t], keep [n,1]."""
    x, step = shocks.clone(), 1
    while step < x.shape[1]:
        x[:, step:] += keep**step * x[:, :-step].clone()
        step *= 2
    return x


def accumulated(factor, shocks):
    """x[t] = factor[t] · x[t-1] + shocks[t]."""
    a, x, step = factor.clone(), shocks.clone(), 1
    while step < x.shape[1]:
        x[:, step:] += a[:, step:] * x[:, :-step].clone()
        a[:, step:] *= a[:, :-step].clone()
        step *= 2
    return x


def keep_of(half_life):
    return torch.exp(-math.log(2) / half_life)


def equilibrium(shocks, keep):
    """A unit-variance autoregression that starts in its stationary law."""
    shocks = shocks * torch.sqrt(1 - keep**2)
    shocks[:, :1] /= torch.sqrt(1 - keep**2)
    return decayed(shocks, keep)


def held(levels, change):
    """levels [n,T] sampled where `change` is set and held until the next change."""
    time = torch.arange(levels.shape[1], device=levels.device).expand_as(levels)
    return levels.gather(1, torch.where(change, time, torch.zeros_like(time)).cummax(1).values)


def lagged(x):
    return torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)


# ---- parts of a market ------------------------------------------------------------------------------------------------------------


def shocks_of(dice, size, group):
    """z [n,T], unit variance: fat tails, some skew, and a part in common within a group."""
    own = dice.student(1 / dice.uniform(0.02, 0.27), size)
    if group > 1:
        common = torch.sqrt(dice.uniform(0, 0.95, per=group))
        own = common * dice.student(1 / dice.uniform(0.02, 0.25, per=group), size)[::group].repeat_interleave(group, 0) + torch.sqrt(1 - common**2) * own
    skew = 0.05 * dice.normal()
    z = torch.where(own < 0, own * (1 + skew), own * (1 - skew))
    return z + 2 * 0.36 * skew  # E|z| is near 0.72 for these tails


def garch_of(dice, z):
    """h [n,T], mean near 1: GJR-GARCH(1,1) driven by the market's own shocks; 1 where a market has none."""
    slack, share = dice.log_uniform(0.003, 0.25), dice.log_uniform(0.02, 0.2)
    share = torch.minimum(share, 0.8 * (1 - slack))
    leverage = dice.uniform(-0.3, 1.0).clamp_min(0) * share  # the part of the reaction that only falls cause
    last = lagged(z)
    reaction = (share - 0.5 * leverage) * last**2 + torch.where(last < 0, leverage * last**2, torch.zeros_like(last))
    factor = reaction + (1 - slack - share)
    inflow = slack.expand_as(z).clone()
    inflow[:, 0] = 1
    h = accumulated(factor, inflow).clamp(0.02, 400)
    return torch.where(dice.chance(0.5), h, torch.ones_like(h))


def factors_of(dice, z, group, strength):
    """log-volatility factors [n,T]: three autoregressions from bars to hundreds of bars, the slower ones answering to falls."""
    total = strength * torch.where(dice.chance(0.75), dice.uniform(0.05, 0.6), torch.zeros_like(z[:, :1]))
    weights = torch.stack([-torch.log(dice.uniform(1e-3, 1)) * bias for bias in (0.5, 1.0, 1.2)])
    weights = weights / torch.sqrt((weights**2).sum(0))
    common = torch.sqrt(dice.uniform(0, 0.9, per=group)) if group > 1 else None
    x = torch.zeros_like(z)
    for i, (low, high) in enumerate(((1, 8), (8, 60), (60, 600))):
        noise = dice.normal(z.shape[1])
        if common is not None:
            noise = common * noise[::group].repeat_interleave(group, 0) + torch.sqrt(1 - common**2) * noise
        answer = torch.where(dice.chance(0.5), dice.uniform(-0.7, 0.1), torch.zeros_like(total)) * (i > 0)
        noise = answer * lagged(z).clamp(-4, 4) + torch.sqrt(1 - answer**2) * noise
        x += weights[i] * equilibrium(noise, keep_of(dice.log_uniform(low, high)))
    return total * x - total**2


def regimes_of(dice, size, strength):
    """A level of volatility that holds for weeks and then jumps."""
    change = dice.uniform(size=size) < dice.log_uniform(0.002, 0.04)
    level = torch.exp(strength * dice.uniform(0.1, 0.8) * dice.normal(size))
    return torch.where(dice.chance(0.22), held(level, change), torch.ones_like(level))


def sessions_of(dice, kind, size, group):
    """How volatile each place of a session is [n,T]: a smile of random depth, a smooth random profile, and a first bar that holds the night."""
    intraday = kind == INTRADAY
    odd = torch.floor(dice.log_uniform(5, 420, per=group))
    period = torch.where(intraday, dice.pick(SESSION_BARS, per=group), dice.pick(CLOCK_BARS, per=group))
    period = torch.where(dice.chance(0.15, per=group), odd, period)
    place = torch.remainder(torch.arange(size, device=dice.device) + torch.floor(dice.uniform(0, 1, per=group) * period), period)
    phase = place / period
    smile = dice.uniform(0, 1.6, per=group) * ((2 * (phase - dice.uniform(0.35, 0.75, per=group))).abs() ** dice.uniform(1, 3, per=group) - 0.4)
    profile = sum(dice.normal(per=group) * torch.cos(2 * math.pi * (k * phase + dice.uniform(per=group))) / k for k in (1, 2, 3))
    log_level = torch.where(intraday, smile, torch.zeros_like(smile)) + dice.uniform(0, 0.35, per=group) * profile
    night = torch.where(dice.chance(0.85, per=group), dice.log_uniform(1.0, 10, per=group), torch.ones_like(period))
    noon = torch.where(dice.chance(0.25, per=group), dice.log_uniform(1.0, 3, per=group), torch.ones_like(period))
    level = torch.exp(log_level)
    level = torch.where(intraday & (place == 0), level * night, level)
    level = torch.where(intraday & (place == torch.floor(period / 2)), level * noon, level)
    level = level / torch.sqrt((level**2).mean(1, keepdim=True))
    has = intraday | ((kind == ALWAYS) & dice.chance(0.6, per=group)) | ((kind == DAILY) & dice.chance(0.04, per=group))
    return torch.where(has, level, torch.ones_like(level))


def jumps_of(dice, kind, size):
    """Jumps in units of the base volatility that leave the volatility after them as it was: news at any time, and results every quarter."""
    rate = torch.where(dice.chance(0.4), dice.log_uniform(0.0005, 0.02), torch.zeros(dice.count, 1, device=dice.device))
    news = (dice.uniform(size=size) < rate) * dice.normal(size) * dice.uniform(1.5, 6)
    quarter, offset = torch.floor(dice.uniform(61, 66)), torch.floor(dice.uniform(0, 61))
    due = torch.remainder(torch.arange(size, device=dice.device) + offset, quarter) == 0
    has = (kind == DAILY) & dice.chance(0.65)
    return news + (due & has) * dice.normal(size) * dice.uniform(1, 5)


# ---- markets ----------------------------------------------------------------------------------------------------------------------


def kinds_of(dice, general, group):
    draw = dice.uniform(per=group)
    kind = torch.full_like(draw, DAILY, dtype=torch.long)
    kind[draw > 0.42 * (1 - general)] = INTRADAY
    kind[draw > 0.80 * (1 - general)] = ALWAYS
    kind[draw > 1 - general] = GENERAL
    return kind


def markets(dice, kind, length, group, strength):
    """(prices [n,length], grain [n,1], volatility of each bar [n,length], shocks): grain is half the step to which prices are rounded, or a small
    part of a bar's move where that is larger."""
    size = BURN_IN + length
    daily = kind == DAILY
    base = torch.where(daily, dice.log_uniform(0.005, 0.06), torch.where(kind == INTRADAY, dice.log_uniform(0.0002, 0.012), dice.log_uniform(0.0001, 0.04)))
    z = shocks_of(dice, size, group)
    hot = (dice.uniform(size=size) < dice.log_uniform(0.0005, 0.008)) & dice.chance(0.3)  # shocks that GARCH then answers
    z = torch.where(hot, z * dice.uniform(2, 5), z)
    relative = torch.exp(factors_of(dice, z, group, strength)) * torch.sqrt(garch_of(dice, z))
    relative = relative * regimes_of(dice, size, strength) * sessions_of(dice, kind, size, group)
    sigma = base * relative.clamp(0.02, 60)
    r = (sigma * z).clamp(-1, 1) + (base * jumps_of(dice, kind, size)).clamp(-1, 1)

    none = torch.zeros_like(base)
    r = r + base * 0.03 * dice.normal()
    drift = equilibrium(dice.normal(size), keep_of(dice.log_uniform(15, 200)))
    r = r + base * torch.where(dice.chance(0.15), dice.uniform(0, 0.1), none) * drift
    r = r + torch.where(dice.chance(0.3), 0.05 * dice.normal(), none).clamp(-0.15, 0.15) * lagged(r)
    pulled = dice.chance(0.07)
    path = decayed(r, torch.where(pulled, keep_of(dice.log_uniform(20, 500)), torch.ones_like(base)))
    bounce = torch.where(dice.chance(0.2) & ~daily, dice.uniform(0, 0.6), none) * base
    path = path + bounce * torch.sign(dice.normal(size))
    error = (dice.uniform(size=size) < 0.002) & dice.chance(0.01)  # a wrong price, gone with the next bar
    path = path + error * base * 8 * dice.normal(size)

    path = path[:, BURN_IN:]
    place = torch.where(dice.chance(0.85), dice.log_uniform(1.5, 2000), dice.log_uniform(0.05, 100000))
    price = place * torch.exp((path - path[:, :1]).clamp(-8, 8))
    tick = torch.where(daily, dice.log_uniform(0.002, 0.15), dice.log_uniform(0.01, 1.5)) * base * place
    rounded = dice.chance(0.6)
    price = torch.where(rounded, (torch.round(price / tick) * tick).clamp_min(tick), price)
    quiet = torch.where(dice.chance(torch.where(daily, 0.01, 0.1)), dice.uniform(0, 0.6), none)
    stays = dice.uniform(size=length) < quiet
    price = held(price, ~stays)
    grain = torch.maximum(torch.where(rounded, 0.5 * tick, none), 0.03 * base * place)
    return price, grain, sigma[:, BURN_IN:], z[:, BURN_IN:]


def general_series(dice, length):
    """(values, grain): cycles, smooth random functions, trends and autoregressive noise in random shares, anywhere on the axis."""
    time = torch.arange(length, device=dice.device, dtype=torch.float32)
    period = torch.floor(dice.log_uniform(3, 300))
    x = torch.zeros(dice.count, length, device=dice.device)
    for k in range(1, 4):
        x += dice.uniform() * dice.normal() / k * torch.sin(2 * math.pi * (k * time / period + dice.uniform()))
    x *= dice.chance(0.7)
    reach = dice.log_uniform(10, 400)
    for _ in range(12):  # a random feature each of a kernel of that reach
        x += 0.4 * dice.normal() * torch.cos(time * dice.normal() / reach + dice.uniform(0, 2 * math.pi))
    x += dice.chance(0.3) * dice.normal() * 2 * time / length
    noise = dice.log_uniform(0.003, 1)
    x += noise * equilibrium(dice.normal(length), torch.where(dice.chance(0.5), dice.uniform(0, 0.98), torch.zeros_like(noise)))
    unit = dice.log_uniform(0.3, 1000)
    offset = unit * torch.where(dice.chance(0.3), torch.zeros_like(unit), dice.normal() * dice.log_uniform(0.5, 20))
    values = offset + unit * x
    values = torch.where(dice.chance(0.2), values.clamp_min(0), values)
    return values, 0.03 * unit * noise


def bar_fields(dice, price, sigma, z, group):
    """Of each group's first market the close, high, low and volume: the extremes of a Brownian bridge between two closes, and a volume that rises
    with volatility and surprise."""
    price, sigma, z = (x[::group].repeat_interleave(group, 0) for x in (price, sigma, z))
    close, before = torch.log(price), torch.log(torch.cat((price[:, :1], price[:, :-1]), 1))
    reach = [torch.sqrt((close - before) ** 2 - 2 * sigma**2 * torch.log(dice.uniform(1e-6, 1, size=price.shape[1]))) for _ in range(2)]
    high, low = torch.exp(0.5 * (close + before + reach[0])), torch.exp(0.5 * (close + before - reach[1]))
    busy = dice.uniform(0.3, 1.2) * torch.log(sigma / sigma.mean(1, keepdim=True)) + dice.uniform(0, 0.3) * z.abs().clamp(max=5)
    volume = dice.log_uniform(10, 1e7) * torch.exp(busy + 0.3 * equilibrium(dice.normal(price.shape[1]), dice.uniform(0, 0.9)))
    which = torch.arange(dice.count, device=dice.device)[:, None] % group
    return torch.where(which == 0, price, torch.where(which == 1, high, torch.where(which == 2, low, volume)))


def sample(seed, count, length, device, group=1, general=0.1, strength=1.0):
    """values [count/group, group, length] and targets, the same with noise of the grain: a density must not pile up on a tick. Groups of 4 are either
    markets that move together, or close, high, low and volume of one. `general` is the share of series that are no market; `strength` scales how far
    volatility changes for other reasons than GARCH's."""
    dice = Dice(seed, count, device)
    kind = kinds_of(dice, general, group)
    values, grain, sigma, z = markets(dice, kind, length, group, strength)
    if group > 1:
        fields = bar_fields(dice, values, sigma, z, group)
        one_market = dice.chance(0.5, per=group) & (kind != GENERAL)
        values = torch.where(one_market, fields, values)
        volume = one_market & (torch.arange(count, device=device)[:, None] % group == 3)
        grain = torch.where(volume, 0.02 * fields.mean(1, keepdim=True), grain)
    other, other_grain = general_series(dice, length)
    values = torch.where(kind == GENERAL, other, values)
    grain = torch.where(kind == GENERAL, other_grain, grain)
    values = torch.nan_to_num(values, nan=1.0, posinf=1e6, neginf=0.0).clamp(-1e7, 1e7)
    targets = values + grain * dice.uniform(-1, 1, size=length)
    return values.unflatten(0, (-1, group)), targets.unflatten(0, (-1, group))
