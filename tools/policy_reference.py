"""Every cache policy by its definition (crates/engine/tests/golden/policies/README.md), on explicit lists of keys.

A lane is one (layer, KV head) with a list of kept positions and the keys and values that belong to them. Nothing here is fast
and nothing is clever: this is what the engine is held against.
"""

import math

import numpy as np

from policy_model import softmax

ROWS = 256  # prompt queries at a time


class Lane:
    def __init__(self, positions, bare, keys, values, score=None):
        self.positions = list(positions)  # (n)
        self.bare = bare  # keys before RoPE (n, head_dim)
        self.keys = keys  # keys after RoPE at their true position (n, head_dim)
        self.values = values  # (n, head_dim)
        self.score = score  # h2o: attention received so far (n)

    def append(self, position, bare, key, value):
        self.positions.append(position)
        self.bare = np.concatenate([self.bare, bare[None]])
        self.keys = np.concatenate([self.keys, key[None]])
        self.values = np.concatenate([self.values, value[None]])
        if self.score is not None:
            self.score = np.concatenate([self.score, np.zeros(1, self.score.dtype)])

    def keep(self, index):
        index = np.sort(np.asarray(index, dtype=int))
        self.positions = [self.positions[i] for i in index]
        self.bare, self.keys, self.values = self.bare[index], self.keys[index], self.values[index]
        if self.score is not None:
            self.score = self.score[index]


class Prompt:
    """What one layer knows of the prompt when it has attended: queries before and after RoPE, keys, values."""

    def __init__(self, model, q_bare, k_bare, v):
        self.model, self.length = model, q_bare.shape[0]
        positions = np.arange(self.length)
        self.q_bare, self.k_bare, self.v = q_bare, k_bare, v
        self.q, self.k = model.rope(q_bare, positions), model.rope(k_bare, positions)

    def weights(self, first, last):
        """Causal attention weights of prompt queries first..last: (n_heads, last - first, length)."""
        m = self.model
        keys = np.repeat(self.k, m.group, axis=1)
        scores = np.einsum("rhd,khd->hrk", self.q[first:last], keys, optimize=True) / math.sqrt(m.head_dim)
        future = np.arange(self.length)[None] > np.arange(first, last)[:, None]
        return softmax(np.where(future[None], -np.inf, scores))

    def attend(self):
        """Context (length, n_heads, head_dim) and the weights' sum over all queries (n_heads, length)."""
        values = np.repeat(self.v, self.model.group, axis=1)
        context, sums = np.empty_like(self.q), np.zeros((self.model.n_heads, self.length), self.q.dtype)
        for first in range(0, self.length, ROWS):
            last = min(first + ROWS, self.length)
            weights = self.weights(first, last)
            context[first:last] = np.einsum("hrk,khd->rhd", weights, values, optimize=True)
            sums += weights.sum(axis=1)
        return context, sums

    def by_lane(self, scores):
        """(n_heads, …) as (n_kv_heads, group, …)."""
        return scores.reshape(self.model.n_kv_heads, self.model.group, *scores.shape[1:])


class CloseCall(Exception):
    """A choice closer than the policy's `least_gap`."""


class Policy:
    """`full`: everything is kept. The others override what differs. `trap` names a plausible mistake to make."""

    token_by_token = False  # the prompt too
    least_gap = 0.0

    def __init__(self, model, options, trap=None):
        self.model, self.options, self.trap = model, options, trap
        self.lanes = [[] for _ in range(model.n_layers)]
        self.gap = math.inf  # least relative distance at a cut
        for name, value in options.items():
            setattr(self, name, value)
        self.pinned = options.get("pinned", 0)

    # -- choosing ------------------------------------------------------------------------------------------------------

    def best(self, scores, n, absolute=False):
        """Indices of the n highest scores, the lower index first among equals."""
        scores = np.asarray(scores)
        order = np.argsort(-scores, kind="stable")
        if 0 < n < len(scores):
            last, next_ = scores[order[n - 1]], scores[order[n]]
            scale = np.abs(scores[np.isfinite(scores)]).max() if absolute else abs(last)
            if last != next_:
                self.gap = min(self.gap, float((last - next_) / scale))
            if self.gap < self.least_gap:
                raise CloseCall(f"{self.gap:.1e}")
        return order[: max(n, 0)]

    def best_of(self, scores, candidates, n, absolute=False):
        candidates = np.asarray(candidates, dtype=int)
        return candidates[self.best(np.asarray(scores)[candidates], n, absolute)]

    # -- the pass ------------------------------------------------------------------------------------------------------

    def prompt(self, layer, q_bare, k_bare, v):
        prompt = Prompt(self.model, q_bare, k_bare, v)
        context, sums = prompt.attend()
        self.lanes[layer] = [
            Lane(range(prompt.length), k_bare[:, h], prompt.k[:, h], v[:, h]) for h in range(self.model.n_kv_heads)
        ]
        self.after_prompt(layer, prompt, sums)
        return context

    def after_prompt(self, layer, prompt, sums):
        pass

    def step(self, layer, position, q_bare, k_bare, v):
        """One token: append, attend, evict. q_bare (n_heads, head_dim), k_bare and v (n_kv_heads, head_dim)."""
        m = self.model
        if not self.lanes[layer]:
            none = np.zeros((0, m.head_dim), m.dtype)
            self.lanes[layer] = [Lane([], none, none, none) for _ in range(m.n_kv_heads)]
        q, k = m.rope(q_bare[None], [position])[0], m.rope(k_bare[None], [position])[0]
        context = np.empty_like(q)
        weights = []  # per lane (group, kept + 1)
        for h, lane in enumerate(self.lanes[layer]):
            lane.append(position, k_bare[h], k[h], v[h])
            mine = slice(h * m.group, (h + 1) * m.group)
            rows = self.attend(layer, h, lane, q_bare[mine], q[mine])
            context[mine] = rows @ lane.values
            weights.append(rows)
        self.after_step(layer, weights)
        return context

    def attend(self, layer, kv_head, lane, q_bare, q):
        """Weights of the group's queries over the lane: (group, kept + 1); 0 where a query does not look."""
        return softmax(q @ lane.keys.T / math.sqrt(self.model.head_dim))

    def after_step(self, layer, weights):
        pass

    def kept(self):
        return [[list(lane.positions) for lane in layer] for layer in self.lanes]


# -- streaming, duo ----------------------------------------------------------------------------------------------------


class Streaming(Policy):
    token_by_token = True

    def attend(self, layer, kv_head, lane, q_bare, q):
        if self.options.get("positions", False) or self.trap == "true positions":
            return super().attend(layer, kv_head, lane, q_bare, q)
        n = len(lane.positions)
        keys = self.model.rope(lane.bare[:, None], np.arange(n))[:, 0]
        q = self.model.rope(q_bare[None], [n - 1])[0]
        return softmax(q @ keys.T / math.sqrt(self.model.head_dim))

    def after_step(self, layer, weights):
        for lane in self.lanes[layer]:
            evict_middle(lane, self.sinks, self.window)


def evict_middle(lane, sinks, window):
    n = len(lane.positions)
    if n > sinks + window:
        lane.keep([*range(sinks), *range(n - window, n)])


class Duo(Policy):
    token_by_token = True

    def after_step(self, layer, weights):
        for gate, lane in zip(self.gates[layer], self.lanes[layer]):
            if gate < 0.5:
                evict_middle(lane, self.sinks, self.recent)


# -- quest -------------------------------------------------------------------------------------------------------------


class Quest(Policy):
    def attend(self, layer, kv_head, lane, q_bare, q):
        page, n = self.page, len(lane.positions)
        pages, budget = -(-n // page), self.budget // page
        if layer < self.dense_layers or pages <= budget:
            return super().attend(layer, kv_head, lane, q_bare, q)
        bounds = np.empty((q.shape[0], pages), q.dtype)
        for i in range(pages):
            keys = lane.keys[i * page : (i + 1) * page]
            bounds[:, i] = np.maximum(q * keys.min(axis=0), q * keys.max(axis=0)).sum(axis=-1)
        if self.options.get("select", "lane") == "lane":
            reduce = np.mean if self.trap == "mean of the group" else np.max
            bounds = np.broadcast_to(reduce(bounds, axis=0), bounds.shape)
        weights = np.zeros((q.shape[0], n), q.dtype)
        for row in range(q.shape[0]):
            if self.trap == "last page competes":
                chosen = list(self.best(bounds[row], budget, absolute=True))
            else:
                chosen = [*self.best(bounds[row, :-1], budget - 1, absolute=True), pages - 1]
            slots = np.concatenate([np.arange(i * page, min((i + 1) * page, n)) for i in sorted(chosen)])
            weights[row, slots] = softmax(q[row] @ lane.keys[slots].T / math.sqrt(self.model.head_dim))
        return weights


# -- prompt compressors ------------------------------------------------------------------------------------------------


class Compressor(Policy):
    """Acts once: `choose` says which positions of the layer's lanes stay."""

    def after_prompt(self, layer, prompt, sums):
        if prompt.length <= self.budget:
            return
        for lane, index in zip(self.lanes[layer], self.choose(layer, prompt)):
            lane.keep(index)


def pool(x, kernel, how):
    """x (n), stride 1, centred: max over what is there, or the sum divided by `kernel`."""
    half, n = kernel // 2, len(x)
    if how == "max":
        return np.array([x[max(j - half, 0) : j + half + 1].max() for j in range(n)])
    return np.array([x[max(j - half, 0) : j + half + 1].sum() / kernel for j in range(n)])


class SnapKv(Compressor):
    def window_mass(self, prompt):
        """What the last W queries gave to each position before them: (n_heads, P - W)."""
        past = prompt.length - self.window
        return prompt.weights(past, prompt.length)[:, :, :past].sum(axis=1)

    def scores(self, prompt):
        """Pooled, per lane: (n_kv_heads, P - W)."""
        mass = self.window_mass(prompt)
        if self.trap == "pool before the mean":
            mass = np.stack([pool(x, self.kernel, self.pool) for x in mass])
            return prompt.by_lane(mass).mean(axis=1)
        if self.trap == "maximum of the group":
            mass = prompt.by_lane(mass).max(axis=1)
        else:
            mass = prompt.by_lane(mass).mean(axis=1)
        return np.stack([pool(x, self.kernel, self.pool) for x in mass])

    def past_budget(self, layer, prompt):
        return self.budget - self.window

    def choose(self, layer, prompt):
        past, n = prompt.length - self.window, self.past_budget(layer, prompt) - self.pinned
        fixed = [*range(self.pinned), *range(past, prompt.length)]
        return [
            [*fixed, *self.best_of(scores, range(self.pinned, past), n)] for scores in self.scores(prompt)
        ]


class PyramidKv(SnapKv):
    def past_budget(self, layer, prompt):
        mean, past, layers = self.budget - self.window, prompt.length - self.window, self.model.n_layers
        if prompt.length < 2 * mean or layers == 1 or self.trap == "uniform":
            return mean
        low = mean // self.beta
        high = 2 * mean - low
        if high >= past:
            high = past
            low = 2 * mean - high
        return high - layer * ((high - low) // (layers - 1))


class AdaKv(SnapKv):
    def choose(self, layer, prompt):
        past, base = prompt.length - self.window, self.budget - self.window - self.pinned
        scores = self.scores(prompt)[:, self.pinned :]
        lanes, width = scores.shape
        winners = self.best(scores.reshape(-1), lanes * base) // width
        floor = math.floor(self.alpha * base)
        kept = []
        for h in range(lanes):
            share = np.count_nonzero(winners == h) * (1 - self.alpha) + floor
            cap = math.floor(share + 0.5) if self.trap == "round half up" else round(share)
            best = self.pinned + self.best(scores[h], cap)
            kept.append([*range(self.pinned), *best, *range(past, prompt.length)])
        return kept


class ChunkKv(SnapKv):
    kernel, pool = 7, "max"

    def choose(self, layer, prompt):
        past, slots = prompt.length - self.window, self.budget - self.window
        mass = self.window_mass(prompt)
        if self.trap == "pooled":
            mass = self.scores(prompt)
        mass = mass.sum(axis=0)
        chunks = [range(first, min(first + self.chunk, past)) for first in range(0, past, self.chunk)]
        means = np.array([mass[list(chunk)].mean() for chunk in chunks])
        kept = list(range(past, prompt.length))
        taken = 0
        for rank, i in enumerate(np.argsort(-means, kind="stable")):
            if taken == slots:
                break
            self.best(means, rank + 1)  # notes the gap behind this chunk
            part = list(chunks[i])[: slots - taken]
            kept += part
            taken += len(part)
            if len(part) < len(chunks[i]):
                break
        return [kept] * self.model.n_kv_heads


class ByKey(Compressor):
    """Scores without queries; the prompt's last token stays."""

    def choose(self, layer, prompt):
        last = prompt.length - 1
        kept = []
        for h in range(self.model.n_kv_heads):
            scores = self.score(prompt, h)
            if self.trap == "last competes":
                kept.append(self.best(scores, self.budget, absolute=True))
            else:
                fixed = [*range(self.first), last]
                n = self.budget - len(fixed)
                kept.append([*fixed, *self.best_of(scores, range(self.first, last), n, absolute=True)])
        return kept

    first = 0  # positions before it stay


class Knorm(ByKey):
    def score(self, prompt, h):
        return -np.linalg.norm(prompt.k[:, h], axis=-1)


class KeyDiff(ByKey):
    def score(self, prompt, h):
        keys = prompt.k[:, h]
        units = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
        mean = units.mean(axis=0)
        if self.trap == "mean of the keys":
            mean = keys.mean(axis=0)
        return -(units @ mean) / np.linalg.norm(mean)


class Expected(ByKey):
    first, future, epsilon = 4, 512, 0.02

    def score(self, prompt, h):
        m, d, p = self.model, self.model.head_dim, prompt.length
        rotation = m.mean_rotation(range(p, p + self.future))
        keys, masses = prompt.k[self.first :, h], []
        for head in range(h * m.group, (h + 1) * m.group):
            queries = (prompt.q if self.trap == "rotated queries" else prompt.q_bare)[self.first :, head]
            mean = queries.mean(axis=0)
            centred = queries - mean
            covariance = centred.T @ centred / len(queries)
            mean, covariance = rotation @ mean, rotation @ covariance @ rotation.T
            if self.trap == "no covariance":
                covariance = covariance * 0
            masses.append(softmax(keys @ mean / math.sqrt(d) + ((keys @ covariance) * keys).sum(axis=-1) / (2 * d)))
        score = (np.mean(masses, axis=0) + self.epsilon) * np.linalg.norm(prompt.v[self.first :, h], axis=-1)
        return np.concatenate([np.full(self.first, score.max()), score])


# -- capped ------------------------------------------------------------------------------------------------------------


class H2o(Policy):
    def after_prompt(self, layer, prompt, sums):
        if self.trap == "last query only":
            sums = prompt.weights(prompt.length - 1, prompt.length)[:, 0]
        for lane, score in zip(self.lanes[layer], prompt.by_lane(sums).sum(axis=1)):
            lane.score = score
            self.evict(lane)

    def after_step(self, layer, weights):
        for lane, rows in zip(self.lanes[layer], weights):
            if self.trap == "no accumulation":
                lane.score = np.zeros_like(lane.score)
            lane.score = lane.score + rows.sum(axis=0)
            self.evict(lane)

    def evict(self, lane):
        n, pinned = len(lane.positions), self.pinned
        if n > self.heavy + self.recent:
            old = n - self.recent
            heavy = self.best_of(lane.score, range(pinned, old), self.heavy - pinned)
            lane.keep([*range(pinned), *heavy, *range(old, n)])


class Tova(Policy):
    def after_prompt(self, layer, prompt, sums):
        self.evict(layer, prompt.weights(prompt.length - 1, prompt.length)[:, 0])

    def after_step(self, layer, weights):
        self.evict(layer, np.concatenate(weights))

    def evict(self, layer, weights):
        mean, n = weights.mean(axis=0), weights.shape[1]
        if n > self.budget:
            last = [n - 1] if self.trap == "last stays" else []
            candidates = range(self.pinned, n - len(last))
            best = self.best_of(mean, candidates, self.budget - self.pinned - len(last))
            for h, lane in enumerate(self.lanes[layer]):
                if self.trap == "per lane":
                    mine = weights[h * self.model.group : (h + 1) * self.model.group].mean(axis=0)
                    best = self.best_of(mine, candidates, self.budget)
                lane.keep([*range(self.pinned), *best, *last])


# -- the text form -----------------------------------------------------------------------------------------------------

POLICIES = {
    "full": Policy,
    "streaming": Streaming,
    "duo": Duo,
    "quest": Quest,
    "snapkv": SnapKv,
    "pyramidkv": PyramidKv,
    "adakv": AdaKv,
    "chunkkv": ChunkKv,
    "knorm": Knorm,
    "keydiff": KeyDiff,
    "expected": Expected,
    "h2o": H2o,
    "tova": Tova,
}


def parse(text):
    """`name:key=value,…` as (name, options)."""
    name, _, rest = text.partition(":")
    options = {}
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        number = value.replace(".", "", 1).isdigit()
        options[key] = (float(value) if "." in value else int(value)) if number else {"true": True}.get(value, value)
    return name, options


def policy(model, spec, folder=None, trap=None):
    name, options = parse(spec)
    if name == "duo":
        rows = (folder / options.pop("pattern")).read_text().splitlines()
        options["gates"] = [[float(gate) for gate in row.split("\t")] for row in rows]
    return POLICIES[name](model, options, trap)


def run(model, policy, ids, prompt):
    """Logits after ids[..prompt] and after each later id: (len(ids) - prompt + 1, vocab); kept sets then and at the end."""
    rows = []
    if policy.token_by_token:
        for position in range(prompt):
            x = one_token(model, policy, ids[position], position)
    else:
        x = model.embed(ids[:prompt])
        for layer in range(model.n_layers):
            x = model.finish(layer, x, policy.prompt(layer, *model.qkv(layer, x)))
    rows.append(model.head(x[-1:])[0])
    after_prompt = policy.kept()
    for position in range(prompt, len(ids)):
        rows.append(model.head(one_token(model, policy, ids[position], position))[0])
    return np.stack(rows), after_prompt, policy.kept()


def one_token(model, policy, token, position):
    x = model.embed([token])
    for layer in range(model.n_layers):
        q, k, v = model.qkv(layer, x)
        x = model.finish(layer, x, policy.step(layer, position, q[0], k[0], v[0])[None])
    return x
