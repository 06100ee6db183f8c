"""The features of a model over a loader: what its last linear layer is given, gathered by hooks."""

import contextlib
import hashlib
from typing import NamedTuple

import torch

from config import UserError
from explainer.attribution import kept, ranks, shards
from explainer.attribution.cache import Collected, Points, filling, load_points, load_settings
from explainer.attribution.checks import first_line, path
from explainer.attribution.digests import fingerprint, hashed
from explainer.attribution.layers import Watch, head_of, logits_of, unwrapped
from explainer.attribution.loaders import batches, check_order, function, given
from explainer.attribution.passes import ONCE, Marks, in_order, same
from explainer.attribution.positions import Part, joined, rows_of
from explainer.attribution.rows import Rows

READ = ", or say with inputs_and_labels where they are"


class Together(NamedTuple):
    """Test points: features (m,d) on the model's device, labels or None, and the point of each row or None.

    count: how many points there are, those without a row included.
    """

    features: torch.Tensor
    labels: torch.Tensor | None
    groups: torch.Tensor | None
    count: int


class Features:
    """A model's head, and the features that it is given. The model is left as it was, after an error as well.

    model: also within DataParallel, DistributedDataParallel or torch.compile. layer: name, number, or the layer itself.
    inputs_and_labels: a function of a batch that returns (inputs, labels); inputs are a tensor, a tuple of arguments or
    a dictionary of named ones. logits: a function of the model's output that returns the logits.
    """

    def __init__(self, model, layer=-1, inputs_and_labels=None, logits=None):
        self.model = unwrapped(model)
        self.head, self.layer = head_of(self.model, layer)
        self.read = function("inputs_and_labels", inputs_and_labels)
        self.logits = function("logits", logits)
        held = (*self.head.parameters(), *self.head.buffers(), *self.model.parameters(), torch.empty(0))
        self.device = held[0].device
        self.fixed = True  # whether the model must be later what it was at `collect`
        self.fingerprint = None

    @contextlib.contextmanager
    def _running(self):
        """The model in evaluation mode, watched: a function from a batch to (`Part`, points), the watch, and `back`."""
        watch = Watch(self.head, self.layer)
        with kept.evaluating(self.model, self.head) as back, kept.eager(), watch:
            yield lambda inputs, labels: self._part(watch, inputs, labels), watch, back

    def _part(self, watch, inputs, labels):
        watch.seen.clear()
        output = self._output(given(inputs, self.device))
        features = watch.check(logits_of(output, self.logits))
        return rows_of(features, labels, self.layer, len(watch.weight)), len(features)

    @torch.no_grad()
    def _output(self, inputs):
        try:
            return self.model(**inputs) if isinstance(inputs, dict) else self.model(*inputs)
        except UserError:
            raise
        except Exception as error:  # of a model that is not ours
            raise UserError(
                f"the model cannot take a batch of the loader ({first_line(error)}): give what its forward takes, or "
                "inputs_and_labels, a function from a batch to (inputs, labels)"
            ) from error

    def collect(self, loader, cache=None):
        """`Points` of a loader, in its order. cache: a folder to keep them in, read instead where it is there already.

        Of several ranks each runs its share where the loaders are shares of a data set; else all run all. Of a cache
        the first rank fills the folder, and the others wait and read it: give all the same folder.

        Raises UserError for a loader that shuffles, or has no labels, and for a cache that was made with another
        model, layer or loader.
        """
        cache = path("cache", cache)
        with kept.randomness(loader), kept.locked(self.model):
            indices = ranks.every(lambda: check_order(loader, ranks.size()), ranks.place())
            if shards.sharded(indices, indices is not None and len(loader.dataset), ranks.place()):
                return self._of_shards(loader, indices, cache)
            if cache is not None:
                return ranks.first_alone(lambda: self._collected(loader, cache), ranks.place())
            points = ranks.every(lambda: self._collected(loader, None), ranks.place())
            shards.agree(Part(points.features, points.labels, points.groups), ranks.place())
            return points

    def _collected(self, loader, cache):
        if cache is not None and (cache / "settings.json").exists():
            return self._cached(cache, loader)
        with contextlib.nullcontext() if cache is None else filling(cache):
            return self._filled(loader, cache)

    def _filled(self, loader, cache):
        if cache is not None and (cache / "settings.json").exists():  # by another process, just before
            return self._cached(cache, loader)
        features = Collected(cache)
        try:
            points, _, digest = self._read(loader, features, cache is not None)
            return features.keep(points, self._settings(digest)) if cache is not None else points
        except BaseException:
            features.dropped()
            raise

    def _read(self, loader, features, hashing):
        """`Points` of a loader whose features are added to `Collected`, how many points, and the hash of the data."""
        if hasattr(loader, "__next__"):
            raise UserError(ONCE)
        marks, parts, sizes, digest = Marks(hashing, in_order(loader)), [], [], hashlib.sha256()
        with self._running() as (run, watch, back):
            self.fingerprint = fingerprint(self.model)
            for inputs, labels in batches(loader, self.read):
                mark = marks.of((inputs, labels))
                part, size = run(inputs, labels)
                if part.labels is None:
                    raise UserError(f"the loader gives no labels: let it give (inputs, labels){READ}")
                f = part.features
                f = f.float().cpu() if f.dtype != torch.float64 else f.cpu()
                marks.add(mark, f, size)
                features.add(f)
                parts.append(part._replace(features=f[:0]))
                sizes.append(size)
                digest.update(mark if hashing else b"")
            if not sizes:
                raise UserError("the loader has no batches: give at least one training point")
            whole = joined(parts, sizes)
            if not len(whole.labels):
                raise UserError("every label is -100, which is left out: give at least one that is not")
            marks.check(batches(loader, self.read), run)
            back()
            if fingerprint(self.model) != self.fingerprint:
                raise UserError("the model's forward changes its parameters: give one that leaves them as they are")
        points = Points(features.finished(), whole.labels, watch.weight, watch.bias, whole.groups, sum(sizes))
        return points, sum(sizes), digest.hexdigest()

    def _cached(self, folder, loader):
        return self._known(folder, *self._digest(loader))

    def _digest(self, loader):
        """The hash of the data, as `_read` makes it, and the first batch."""
        digest, first = hashlib.sha256(), None
        for batch in batches(loader, self.read):  # reading the data is cheap beside the model
            first = batch if first is None else first
            digest.update(hashed(batch))
        return digest.hexdigest(), first

    def _known(self, folder, digest, first, point=0):
        """`Points` of a cache, whose row of `point` is that of the first batch's first point."""
        points = load_points(folder)
        with self._running() as (run, _, _):
            self.fingerprint = fingerprint(self.model)
            known, mine = load_settings(folder), self._settings(digest)
            other = [name for name in mine if known.get(name) != mine[name]]
            if not other:  # parameters and data are the same: is the forward?
                part = run(*first)[0]
                rows, own = slice(point, point + 1), slice(0, 1)
                if points.groups is not None:
                    start, stop = torch.searchsorted(points.groups, torch.tensor([point, point + 1])).tolist()
                    rows, own = slice(start, stop), part.groups == 0
                cached = Rows(points.features, whole=True)
                other = [] if same(cached.block(rows), part.features[own]) else ["model"]
        if other:
            raise UserError(
                f"the cache {folder} was made with another {' and '.join(other)}: give another folder, or remove it"
            )
        return points

    def _settings(self, data):
        """What features depend on: the layer, and hashes of the model's parameters and buffers, and of the data."""
        return {"layer": self.layer, "model": self.fingerprint[:16], "loader": data[:16]}

    def _of_shards(self, loader, indices, cache):
        """`Points` of all ranks, each of which has run its share of the data set."""
        there = cache is not None and ranks.rank() == 0 and (cache / "settings.json").exists()
        if ranks.total(torch.tensor([int(there)], device=ranks.place())).item():
            digest, first = ranks.every(lambda: self._digest(loader), ranks.place())
            digest = _combined(digest, ranks.place())
            return ranks.every(lambda: self._known(cache, digest, first, indices[0]), ranks.place())
        points, digest = ranks.every(lambda: self._share(loader, indices, cache is not None), ranks.place())
        part = shards.merged(Part(points.features, points.labels, points.groups), indices, ranks.place())
        points = points._replace(
            features=part.features.cpu(), labels=part.labels, groups=part.groups, count=len(loader.dataset)
        )
        if cache is None:
            return points
        digest = _combined(digest, ranks.place())
        return ranks.first_alone(lambda: self._kept(cache, points, digest), ranks.place())

    def _share(self, loader, indices, hashing):
        points, size, digest = self._read(loader, Collected(None), hashing)
        _check_share(size, indices)
        return points, digest

    def _kept(self, cache, points, digest):
        if ranks.rank():
            return load_points(cache)
        with filling(cache):
            features = Collected(cache)
            try:
                features.add(points.features)
                return features.keep(points, self._settings(digest))
            except BaseException:
                features.dropped()
                raise

    def together(self, loader):
        """`Together`: all points of a loader, with the features on the model's device.

        Of several ranks each runs its share where the loader is one, and all have the points in the data set's order.

        Raises UserError for a loader that shuffles, and for a model that is not what it was at `collect`.
        """
        with kept.randomness(loader), kept.locked(self.model):
            indices = ranks.every(lambda: check_order(loader, ranks.size()), ranks.place())
            share = shards.sharded(indices, indices is not None and len(loader.dataset), ranks.place())
            part, count = ranks.every(lambda: self._tested(loader, indices if share else None), ranks.place())
            if share:
                part = shards.merged(part, indices, ranks.place())
                return Together(part.features.to(self.device), part.labels, part.groups, len(loader.dataset))
            shards.agree(part, ranks.place())
            return Together(*part, count)

    def _tested(self, loader, indices):
        marks = Marks(False, in_order(loader) or hasattr(loader, "__next__"))
        parts, sizes = [], []
        with self._running() as (run, _, _):
            if self.fixed and self.fingerprint not in (None, fingerprint(self.model)):
                raise UserError("the model has changed since the explainer was made: make the explainer again")
            for inputs, labels in batches(loader, self.read):
                mark = None if marks.partial else marks.of((inputs, labels))
                part, size = run(inputs, labels)
                marks.add(mark, part.features, size)
                parts.append(part)
                sizes.append(size)
            if not parts:
                raise UserError("the loader has no batches: give at least one point")
            if not marks.partial:
                marks.check(batches(loader, self.read), run)
        if indices is not None:
            _check_share(sum(sizes), indices)
        return joined(parts, sizes), sum(sizes)


def _check_share(size, indices):
    if size != len(indices):
        raise UserError(f"the loader's sampler says {len(indices)} points, and it gives {size}: give shuffle=False")


def _combined(digest, device):
    """One hash of those of all ranks."""
    return hashlib.sha256("".join(ranks.told(digest, device)).encode()).hexdigest()
