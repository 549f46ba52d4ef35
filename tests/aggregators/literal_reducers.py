"""The rules of the token reducers, written out slowly, patch by patch in float64, from the papers and released code.

Each takes features (T N D) as an array, and returns the tokens as rows. `quota` stands for the rounding that makes the
number of tokens exact: it is the one thing that the papers do not have.
"""

from __future__ import annotations

import math

import numpy as np


def quota(total, weights, most):
    """Shares in proportion, none above its limit; whole parts first, then one more for the largest remainders."""
    fixed = {}
    while True:
        mass = sum(w for i, w in enumerate(weights) if i not in fixed)
        rest = total - sum(fixed.values())
        shares = {i: rest * w / mass for i, w in enumerate(weights) if i not in fixed} if mass else {}
        over = [i for i, share in shares.items() if share >= most[i] - 1e-9]
        if not over:
            break
        fixed |= {i: most[i] for i in over}
    counts = {**fixed, **{i: math.floor(share + 1e-9) for i, share in shares.items()}}
    for i in sorted(shares, key=lambda i: (counts[i] - shares[i], i))[: total - sum(counts.values())]:
        counts[i] += 1
    return [counts.get(i, 0) for i in range(len(weights))]


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def dpc_scores(x, k):
    n, scores = len(x), []
    distance = [[math.sqrt(round(sum((x[i] - x[j]) ** 2) / len(x[i]), 9)) for j in range(n)] for i in range(n)]
    density = [math.exp(-np.mean(sorted(d**2 for d in row)[:k])) for row in distance]
    largest = max(map(max, distance))
    for i in range(n):
        higher = [distance[i][j] for j in range(n) if (-density[j], j) < (-density[i], i)]
        scores.append(density[i] * min(higher, default=largest))
    return scores, distance


def dpc(x, clusters, k):
    """Centres, and for each row the place of its centre among them."""
    scores, distance = dpc_scores(x, k)
    centres = sorted(sorted(range(len(x)), key=lambda i: -scores[i])[:clusters])
    owner = [min(range(clusters), key=lambda c: distance[i][centres[c]]) for i in range(len(x))]
    for c, i in enumerate(centres):
        owner[i] = c
    return centres, owner


def vidcom2(x, tokens):
    t, n, d = x.shape
    variance = [np.mean((x[..., c] - x[..., c].mean()) ** 2) for c in range(d)]
    channels = sorted(range(d), key=lambda c: variance[c])[: d // 2]
    unit = np.array([[x[i, p, channels] / np.linalg.norm(x[i, p, channels]) for p in range(n)] for i in range(t)])
    video = unit.reshape(-1, d // 2).mean(0)

    def g(value, centre):
        return sum(math.exp(-sum((value - centre) ** 2) / (2 * a)) for a in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    u = [-np.mean([g(unit[i, p], video) for p in range(n)]) for i in range(t)]
    e = [math.exp((value - max(u)) / 0.01) for value in u]
    s = [value / sum(e) for value in e]
    ratio = tokens / (t * n)
    counts = quota(tokens, [ratio * (1 + value - 1 / t) for value in s], [n] * t)
    rows = []
    for i in range(t):
        score = [g(unit[i, p], video) + g(unit[i, p], unit[i].mean(0)) for p in range(n)]
        rows += [x[i, p] for p in sorted(sorted(range(n), key=lambda p: score[p])[: counts[i]])]
    return np.array(rows)


def visionzip(x, attention, keys, tokens):
    rows = []
    for i, count in enumerate(quota(tokens, [1] * len(x), [x.shape[1]] * len(x))):
        dominant = int(count * 54 / 64)
        order = sorted(range(x.shape[1]), key=lambda p: -attention[i, p])
        rest = sorted(order[dominant:])
        contextual = count - dominant
        targets = rest[:: max(1, len(rest) // contextual)][:contextual]
        members = {target: [] for target in targets}
        for p in rest:
            if p not in members:
                members[max(targets, key=lambda target: cosine(keys[i, p], keys[i, target]))].append(p)
        rows += [x[i, p] for p in sorted(order[:dominant])]
        rows += [x[i, q] + (x[i, members[q]].mean(0) if members[q] else 0) for q in targets]
    return np.array(rows)


def _split(x, windows, score, tokens, threshold):
    """Groups (frames, places) of static and of other places; static ones from the most similar on, while there is room."""
    t, n, _ = x.shape
    room, chosen = t * n - tokens, set()
    found = [(score(w, p), k, p) for k, w in enumerate(windows) if len(w) > 1 for p in range(n)]
    for _, k, p in sorted((f for f in found if f[0] > threshold), key=lambda f: (-f[0], f[1], f[2])):
        room -= len(windows[k]) - 1
        if room < 0:
            break
        chosen.add((k, p))
    groups = []
    for k, window in enumerate(windows):
        static = [p for p in range(n) if (k, p) in chosen]
        groups += [(window, static)] if static else []
        others = [p for p in range(n) if p not in static]
        groups += [([i], others) for i in window if others]
    return groups


def prunevid(x, tokens):
    t, _, _ = x.shape
    _, labels = dpc(x.mean(1), max(1, int(t * 0.25)), 7)
    runs = [[0]]
    for i in range(1, t):
        runs[-1].append(i) if labels[i] == labels[i - 1] else runs.append([i])
    longest = {label: max(len(r) for r in runs if labels[r[0]] == label) for label in labels}
    new = list(labels)
    for run in runs:
        for i in run:
            new[i] = labels[i] if len(run) > 1 and len(run) == longest[labels[i]] else None
    i = 0
    while i < t:
        j = i
        while j < t and new[j] is None:
            j += 1
        if j > i:
            before = after = 0
            while i - before > 0 and new[i - 1 - before] == new[i - 1]:
                before += 1
            while j + after < t and new[j + after] == new[j]:
                after += 1
            label = 0 if i == 0 and j == t else new[i - 1] if i and before >= after else new[j]
            new[i:j] = [label] * (j - i)
        i = j + 1
    windows = [[0]]
    for i in range(1, t):
        windows[-1].append(i) if new[i] == new[i - 1] else windows.append([i])

    def score(window, p):
        return np.mean([cosine(x[i, p], x[j, p]) for i in window for j in window if i != j])

    groups, rows = _split(x, windows, score, tokens, 0.8), []
    sizes = [len(places) for _, places in groups]
    for (frames, places), count in zip(groups, quota(tokens, sizes, sizes)):
        values = x[frames][:, places].mean(0)
        owner = dpc(values, count, 7)[1] if count else []
        rows += [np.mean([v for v, o in zip(values, owner) if o == c], axis=0) for c in range(count)]
    return np.array(rows)


def holitom(x, attention, tokens):
    t, n, _ = x.shape
    similar = [[cosine(x[i, p], x[i + 1, p]) for p in range(n)] for i in range(t - 1)]

    def score(window, p):
        return min(similar[i][p] for i in window[:-1])

    def saved(a, b):
        return (b - a) * sum(score(range(a, b + 1), p) > 0.8 for p in range(n)) if b > a else 0

    def best(divided, b):
        """All ways to divide the frames up to b, by brute force."""
        if b < 0:
            yield divided
        for a in range(b + 1):
            yield from best([(a, b), *divided], a - 1)

    chosen = max(best([], t - 1), key=lambda d: (sum(saved(*w) for w in d), [a for a, _ in reversed(d)]))
    windows = [list(range(a, b + 1)) for a, b in chosen]
    groups, rows = _split(x, windows, score, tokens, 0.8), []
    sizes = [len(places) for _, places in groups]
    for (frames, places), count in zip(groups, quota(tokens, sizes, sizes)):
        values = x[frames][:, places].mean(0)
        if len(frames) == 1:
            kept = sorted(sorted(range(len(places)), key=lambda k: -attention[frames[0], places[k]])[:count])
            rows += [values[k] for k in kept]
            continue
        centres, owner = dpc(values, count, min(7, count)) if count else ([], [])
        for c, centre in enumerate(centres):
            others = [k for k, o in enumerate(owner) if o == c and k != centre]
            rows.append(0.6 * values[centre] + 0.4 * values[others].mean(0) if others else values[centre])
    return np.array(rows)


def fastvid(x, attention, tokens):
    t, n, _ = x.shape
    frames = x.mean(1)
    similarity = [cosine(frames[i], frames[i + 1]) for i in range(t - 1)]
    cuts = {i for i, s in enumerate(similarity) if s < 0.9}
    cuts |= set(sorted(range(t - 1), key=lambda i: similarity[i])[:7])
    counts, found, start = quota(tokens, [1] * t, [n] * t), [], 0
    for stop in [*(c + 1 for c in sorted(cuts)), t]:
        segment = list(range(start, stop))
        context = sum(int(0.4 * counts[i]) for i in segment)
        salient = {}
        for i in segment:
            order = sorted(range(n), key=lambda p: -attention[i, p])
            salient[i] = order[: counts[i] - int(0.4 * counts[i])]
            found += [((i, p), x[i, p]) for p in salient[i]]
        rest = [(i, p) for i in segment for p in range(n) if p not in salient[i]]
        anchor_frames = [i for i in segment if (stop - 1 - i) % 4 == 0]
        room = [n - len(salient[i]) for i in anchor_frames]
        for i, count in zip(anchor_frames, quota(context, [1] * len(anchor_frames), room)):
            own = [p for p in range(n) if p not in salient[i]]
            scores = dpc_scores(x[i, own], 4)[0] if own else []
            anchors = [own[k] for k in sorted(range(len(own)), key=lambda k: -scores[k])[:count]]
            members = {a: [] for a in anchors}
            for j, p in rest if anchors else []:
                members[max(anchors, key=lambda a: cosine(x[j, p], x[i, a]))].append(x[j, p])
            for a in anchors:
                b = max(1 / (len(members[a]) + 1), 0.6)
                found.append(((i, a), b * x[i, a] + (1 - b) * np.mean(members[a], axis=0)))
        start = stop
    return np.array([row for _, row in sorted(found, key=lambda f: f[0])])


def finch(frames):
    """All partitions of frames by first neighbours in features and time."""
    t = len(frames)
    clusters, found = [[i] for i in range(t)], []
    while True:
        f = [frames[c].mean(0) for c in clusters]
        time = [np.mean([(i + 1) / t for i in c]) for c in clusters]
        n = len(clusters)
        if n == 1:
            return found or [clusters]
        far = [[(1 - cosine(f[i], f[j])) * abs(time[i] - time[j]) for j in range(n)] for i in range(n)]
        nearest = [min((j for j in range(n) if j != i), key=lambda j: far[i][j]) for i in range(n)]
        linked = [
            [j for j in range(n) if j == nearest[i] or i == nearest[j] or nearest[i] == nearest[j]] for i in range(n)
        ]
        groups, seen = [], set()
        for i in range(n):
            todo, group = [i], set()
            while todo:
                j = todo.pop()
                if j not in seen:
                    seen.add(j)
                    group.add(j)
                    todo += linked[j]
            groups += [sorted(group)] if group else []
        new = [sorted(i for j in group for i in clusters[j]) for group in groups]
        if found and (len(new) == 1 or len(new) == n):
            return found
        found.append(new)
        if len(found) > 1 and n - len(new) == 1:
            return found
        clusters = new


def dyto(x, tokens):
    partitions = finch(x.mean(1))
    clusters = partitions[1] if len(partitions) > 1 else partitions[0]
    if len(clusters) <= 6:
        chosen = sorted(i for c in clusters for i in c[: 12 // len(clusters)])
    else:
        chosen = sorted(c[len(c) // 2] if len(c) > 2 else c[-1] for c in clusters)
    if len(chosen) > 25:
        chosen = [chosen[int(k)] for k in np.linspace(0, len(chosen) - 1, 25)]
    rows = []
    for i, count in zip(chosen, quota(tokens, [1] * len(chosen), [x.shape[1]] * len(chosen))):
        patches = list(x[i])
        while len(patches) > count:
            half = len(patches) // 2
            r = min(len(patches) - count, half)
            metric = [p.reshape(16, -1).mean(0) for p in patches]
            match = [max(range(half, len(patches)), key=lambda b: cosine(metric[a], metric[b])) for a in range(half)]
            order = sorted(range(half), key=lambda a: -cosine(metric[a], metric[match[a]]))
            second = {b: patches[b] for b in range(half, len(patches))}
            for a in order[:r]:
                second[match[a]] = np.maximum(second[match[a]], patches[a])
            patches = [patches[a] for a in order[r:]] + list(second.values())
        rows += patches
    return np.array(rows)
