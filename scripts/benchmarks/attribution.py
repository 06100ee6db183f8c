"""Self-influence of all points and top 5 of 1,000 test points, beside the best closed form in bare operations."""

import gc
import statistics
import warnings

import numpy as np
import torch

from benchmarks.measure import peak_memory, seconds
from config import a_text, at_least_one, device, several
from explainer.attribution import RPSLJE, InfluenceFunction
from models.memory import room

LR, K, BLOCK = 0.01, 5, 2**20


def add_options(parser):
    add = parser.add_argument
    add("--n", type=at_least_one, nargs="+", default=[10000, 50000], help="training points")
    add("--d", type=at_least_one, nargs="+", default=[64, 512], help="features")
    add("--m", type=at_least_one, default=1000, help="test points")
    add("--repeats", type=several, default=7, help="measurements, of which the median counts")
    add("--device", type=a_text, default="cpu", help="where the arrays are, and with them the work: cpu, cuda or auto")


def problem(n, d, m):
    """Seeded float32 features, labels, a head without a bias, and test features."""
    generator = torch.Generator().manual_seed(0)
    F, theta = torch.randn(n, d, generator=generator), torch.randn(d, generator=generator) / d**0.5
    y = (torch.rand(n, generator=generator) < (F @ theta).sigmoid()).long()
    return F, y, theta, torch.randn(m, d, generator=generator)


def bare(F, y, theta, F_test, lje):
    """RPS-LJE (lje) or influence functions by float32 products over blocks, a Cholesky factor and a running top-k."""
    n, d = F.shape
    y = y.float()
    rows = min(max(256, BLOCK // d), -(-n // 4))  # so that the scores are never in memory all at once
    slices = [slice(start, start + rows) for start in range(0, n, rows)]

    def gradient(weight):
        p = torch.cat([F[s] @ weight for s in slices]).sigmoid()
        return p, sum(F[s].T @ (p[s] - y[s]) for s in slices) / n

    p, g = gradient(theta)
    center = theta + LR * g if lje else theta
    p = gradient(center)[0] if lje else p
    H = torch.zeros(d, d, dtype=torch.float64, device=F.device)
    for s in slices:
        weighted = F[s] * (p[s] * (1 - p[s])).sqrt()[:, None]
        H += (weighted.T @ weighted).double()
    L = torch.linalg.cholesky(H / n)
    A = torch.linalg.solve_triangular(L, torch.eye(d, dtype=torch.float64, device=F.device), upper=False).T.float()
    r = p - y
    own = torch.cat([(F[s] @ A).square().sum(1) for s in slices])
    sign = torch.where(F_test @ theta > 0, 1.0, -1.0)
    if lje:
        own = (F @ center - own * r) * (2 * y - 1) / n
        V = -(F_test * sign[:, None]) @ A @ A.T / n
    else:
        own = own * r**2 / n
        V = F_test * ((F_test @ theta).sigmoid() - (sign > 0).float())[:, None] @ A @ A.T / n
    values = torch.full((len(F_test), K), -torch.inf, device=F.device)
    indices = torch.zeros(len(F_test), K, dtype=torch.long, device=F.device)
    for s in slices:
        best, columns = (V @ (F[s] * r[s, None]).T).topk(K, dim=1)
        values, picked = torch.cat([values, best], 1).topk(K, dim=1)
        indices = torch.cat([indices, columns + s.start], 1).gather(1, picked)
    if lje:
        values = values + ((F_test @ center) * sign / n)[:, None]
    return own.cpu().numpy(), values.cpu().numpy(), indices.cpu().numpy()


def ours(F, y, theta, F_test, lje):
    """The same by the library."""
    explainer = RPSLJE.from_arrays(F, y, theta, lr=LR) if lje else InfluenceFunction.from_arrays(F, y, theta)
    return explainer.self_influence(), *explainer.top_k(F_test, K)


def peers():
    """{name: function} of libraries that happen to be installed and do the same on arrays."""
    found = {}
    try:
        from captum.influence import TracInCPFast  # noqa: F401
    except ImportError:
        return found
    found["captum, TracInCPFast (another method: no Hessian)"] = captum_tracin
    return found


def captum_tracin(F, y, theta, F_test, lje):
    """Captum's TracIn on the last layer, top 5: the fastest of what it offers for a linear head."""
    from captum.influence import TracInCPFast

    head = torch.nn.Linear(F.shape[1], 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(theta[None])
    model = torch.nn.Sequential(head)
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
    data = torch.utils.data.TensorDataset(F, y.float()[:, None])
    tracin = TracInCPFast(model, head, data, ["now"], lambda *_: 1.0, loss, 2048)
    own = tracin.self_influence(show_progress=False).numpy()
    target = (F_test @ theta > 0).float()[:, None]
    result = tracin.influence((F_test, target), k=K, proponents=True)
    return own, result.influence_scores.numpy(), result.indices.numpy()


def run(options):
    where, n, d = device(options.device), max(options.n), max(options.d)
    room(8 * d * (n + d + options.m), f"--n {n} with --d {d} and --m {options.m}")
    place = torch.cuda.get_device_name() if where.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{options.m:,} test points, float32, {place}, medians of {options.repeats}")
    print("| method | n | d | bare, s | ours, s | ratio | bare, MB | ours, MB | self-influence differs | top 5 agree |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    warnings.simplefilter("ignore")  # of peers
    notes = []
    for lje in (True, False):
        for n in options.n:
            for d in options.d:
                given = (*(part.to(where) for part in problem(n, d, options.m)), lje)
                times, memory, results = {bare: [], ours: []}, {}, {}
                for function in times:  # once to warm up, and to measure memory
                    gc.collect()
                    memory[function] = peak_memory(function, *given)
                    results[function] = function(*given)
                for _ in range(options.repeats):
                    for function in times:
                        times[function].append(seconds(function, *given)[0])
                b, o = (statistics.median(times[function]) for function in (bare, ours))
                sizes = ["–" if memory[f] is None else f"{memory[f] / 1e6:.0f}" for f in (bare, ours)]
                own = np.abs(results[bare][0] - results[ours][0]).max() / np.abs(results[bare][0]).max()
                same = (results[bare][2] == results[ours][2]).mean()
                name = "RPS-LJE" if lje else "Influence function"
                print(
                    f"| {name} | {n:,} | {d} | {b:.3f} | {o:.3f} | {o / b:.2f} | {' | '.join(sizes)} | {own:.1e} | "
                    f"{same:.4f} |",
                    flush=True,
                )
                if lje:
                    continue
                for peer, function in peers().items() if where.type == "cpu" else ():
                    time, _ = seconds(function, *given)
                    notes.append(f"| {peer} | {n:,} | {d} | {time:.3f} | {time / o:.1f} |")
    if notes:
        print("\n| peer | n | d | s | times ours |\n| --- | --- | --- | --- | --- |")
        print("\n".join(notes))
