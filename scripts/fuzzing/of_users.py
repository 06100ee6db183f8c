"""Files that users bring, and archives of data sets: tables, features, word vectors, images, MNIST's files, texts."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
from PIL import Image

from config import UserError
from dataset_debugging.find_label_errors import Features
from explainer.attribution import RPSLJE
from explainer.attribution.rows import Rows
from explainer.decomposition import mnist
from explainer.decomposition.hierarchy import Hierarchy
from explainer.label_errors import find_label_errors
from explainer.label_errors.tables import read_table
from fuzzing.formats import D, Format, N
from models import files, images
from models.CDEP import text
from models.RNN import utils_imdb, vectors
from models.RNN.texts import Lines
from models.Xgboost import utils_german

AGAIN = "make it again"
WORDS = ["<unk>", "<pad>", "film", "dull", "charm"]
ROWS = "age,city,größe,good\n" + "".join(
    f"{20 + i},{('Bonn', 'Köln', 'Ulm')[i % 3]},{1.5 + i / 7:.2f},{'yes' if i % 2 else 'no'}\n" for i in range(14)
)


def table(name, encoding, separator=","):
    """The `Format` of a table in an encoding."""

    def make(folder):
        data = ROWS.replace(",", separator).encode(encoding)
        (folder / "table.csv").write_bytes(gzip.compress(data, mtime=0) if "gz" in name else data)

    def read(folder):
        found = read_table(folder / "table.csv", "good")
        return {"rows": found.rows.to_dict("list"), "X": found.X, "labels": found.labels, "numbers": found.numbers}

    return Format(name, "table.csv", make, read, "text" if encoding == "utf-8" and "gz" not in name else "", False)


def rows():
    """Features (n,d) and labels (n,)."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(N, D)).astype(np.float32), np.arange(N) % 2


def make_features(folder):
    F, y = rows()
    np.savez(
        folder / "features.npz", features=F, labels=y, moments=np.stack([F, F]), probabilities=np.full((3, N, 2), 0.5)
    )


def read_features(folder):
    found = Features(SimpleNamespace(features=str(folder / "features.npz")))
    table = find_label_errors(found.features, found.labels, found.moments, probabilities=found.probabilities)
    return table.to_dict("list")


def make_rows(folder):
    np.save(folder / "rows.npy", rows()[0])


def read_rows(folder):
    found = Rows(folder / "rows.npy")
    RPSLJE.from_arrays(folder / "rows.npy", rows()[1], np.ones((1, D)), np.zeros(1)).self_influence()
    return found.block(slice(0, found.n))


def make_vectors(folder):
    rng = np.random.default_rng(2)
    lines = [f"{word} {' '.join(f'{v:.3f}' for v in rng.normal(size=vectors.WIDTH))}" for word in WORDS[2:]]
    (folder / "vectors.txt").write_text("\n".join(lines) + "\n")


def make_glove(folder):
    make_vectors(folder)
    with zipfile.ZipFile(folder / "glove.6B.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(folder / "vectors.txt", vectors.GLOVE)
    (folder / "vectors.txt").unlink()


def read_glove(folder):
    return list(vectors.vectors(WORDS, data_dir=folder))


def make_reviews(folder):
    with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as tar:
        for place in ("train/pos", "train/neg", "test/pos", "test/neg"):
            for i in range(2):
                said = f"{place} review {i}: a film of some length, and of the usual charm".encode()
                member = tarfile.TarInfo(f"aclImdb/{place}/{i}_7.txt")
                member.size = len(said)
                tar.addfile(member, io.BytesIO(said))


def read_reviews(folder):
    found = utils_imdb.texts("imdb", folder)
    return {name: found.text(i) for i, name in enumerate(found.names)}


def make_tokens(folder):
    starts, labels = np.array([0, 2, 5]), np.array([0, 1])
    parts = {f"{part}_{name}": value for part in utils_imdb.PARTS
             for name, value in (("words", np.arange(5, dtype=np.int32)), ("starts", starts), ("labels", labels),
                                 ("rows", labels))}  # fmt: skip
    arrays = {"words": np.array("\n".join(WORDS)), **parts}
    more = {"checksum": np.array(utils_imdb._checksum(arrays))} if hasattr(utils_imdb, "_checksum") else {}
    files.save_npz(folder / "tokens.npz", **arrays, **more)


def read_tokens(folder):
    found = utils_imdb._cached(folder / "tokens.npz")
    if found is None:
        raise UserError("made again")
    return found


def make_hierarchy(folder):
    levels = [np.zeros(4, int), np.array([1, 1, 0, 0]), np.array([1, 1, 1, 1])]
    singles = [np.arange(4.0), np.array([np.nan, np.nan, 2.0, 3.0]), np.full(4, np.nan)]
    Hierarchy(levels, [{}, {1: 0.5}, {1: 1.5}], singles, None, list("abcd")).to_json(folder / "hierarchy.json")


def read_hierarchy(folder):
    found = Hierarchy.from_json(folder / "hierarchy.json")
    return [json.loads(found.to_json()), found.nested(), str(found.collapse())]


def picture(suffix, mode="RGB", **more):
    """The `Format` of an image, read as a picture and as a mask."""
    name = f"image{suffix}"

    def make(folder):
        pixels = np.random.default_rng(4).integers(0, 256, (9, 7, 3)).astype(np.uint8)
        image = Image.fromarray(pixels)
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
        image.save(folder / name, **more)

    def read(folder):
        white = images.white_of([folder / name])
        seen = images.read(folder / name, white)
        return [seen, images.scaled(folder / name, 16, white)[0]]

    return Format(f"image {suffix} {mode}", name, make, read, "", False)


def make_mask(folder):
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(folder / "mask.png")


MNIST = "t10k-images-idx3-ubyte"
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))


def idx(packed):
    """The `Format` of a file of MNIST that stands for the published one, with its checksum."""
    name = MNIST + ".gz" * packed

    def make(folder):
        (folder / name).write_bytes(gzip.compress(IDX, mtime=0) if packed else IDX)

    def read(folder):
        mnist.FILES = {**mnist.FILES, MNIST: (16, hashlib.sha256(IDX).hexdigest(), "")}
        return np.frombuffer(mnist._content(folder, MNIST), np.uint8)

    return Format(f"MNIST{' packed' * packed}", name, make, read)


def make_german(folder):
    found = utils_german.load()
    keep = {name: np.asarray(getattr(found, name)) for name in type(found).__dataclass_fields__}
    small = {name: array if name == "columns" else array[:30] for name, array in keep.items()}
    files.save_npz(folder / "german.npz", **small)


def read_german(folder):
    before, utils_german.PREPARED = utils_german.PREPARED, folder / "german.npz"
    try:
        found = utils_german.load()
        return {name: getattr(found, name) for name in type(found).__dataclass_fields__}
    finally:
        utils_german.PREPARED = before


def make_trees(folder):
    lines = ["(3 (2 a) (4 (2 fine) (2 film)))", "(1 (2 dull) (2 film))"]
    (folder / "train.txt").write_text("\n".join(lines) + "\n")


def make_snippets(folder):
    lines = [f"{i}\t{(-1) ** i * 1.5}\tfilm number {i} has some charm" for i in range(12)]
    (folder / "snippets.txt").write_text("\n".join(lines) + "\n")


def read_snippets(folder):
    found = Lines(folder / "snippets.txt")
    return [found.names, found.labels, found.part, found.texts]


FORMATS = (
    table("table utf-8", "utf-8"), table("table latin-1", "cp1252", ";"), table("table utf-16", "utf-16", "\t"),
    table("table gz", "utf-8"),
    Format("features npz", "features.npz", make_features, read_features, "npz", False, ("moments", "probabilities")),
    Format("features npy", "rows.npy", make_rows, read_rows, "npy", False),
    Format("word vectors", "vectors.txt", make_vectors,
           lambda folder: list(vectors.vectors(WORDS, folder / "vectors.txt")), "text", False),
    Format("GloVe's archive", "glove.6B.zip", make_glove, read_glove),
    Format("IMDB's archive", "aclImdb_v1.tar.gz", make_reviews, read_reviews),
    Format("tokens of reviews", "tokens.npz", make_tokens, read_tokens, "npz"),
    Format("hierarchy", "hierarchy.json", make_hierarchy, read_hierarchy, "json", hasattr(files, "Array"), ("names",)),
    picture(".png"), picture(".png", "I;16"), picture(".png", "P"), picture(".png", "RGBA"), picture(".jpg"),
    picture(".bmp"), picture(".gif"), picture(".tif"), picture(".tif", "I;16"), picture(".tif", "F"), picture(".ppm"),
    picture(".webp", lossless=True),
    Format("mask", "mask.png", make_mask, lambda folder: list(images.read_mask(folder / "mask.png")), "", False),
    idx(packed=True), idx(packed=False),
    Format("German Credit", "german.npz", make_german, read_german, "npz", loose=("columns",)),
    Format("treebank", "train.txt", make_trees, lambda folder: list(map(str, text.phrases(folder / "train.txt"))),
           "text", False),
    Format("snippets", "snippets.txt", make_snippets, read_snippets, "text", False),
)  # fmt: skip
