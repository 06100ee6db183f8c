"""No route from data to code: calls that could load a pickle, start a program or unpack all are looked for."""

import ast
import io
import os
import pickle

import pytest
import torch
from commands import REPOSITORY

from config import UserError
from models.CDEP.folder import backbone
from models.CNN import train as cnn_train
from models.downloads import hub_state
from models.images import FORMATS

FOLDERS = "models", "explainer", "dataset_debugging", "scripts"
NEVER = set(
    "pickle _pickle cPickle dill cloudpickle joblib shelve marshal yaml requests torchvision.datasets torch.package "
    "multiprocessing.connection.Listener multiprocessing.connection.Client".split()
)
REFUSED = set(
    "eval exec compile __import__ os.system os.popen os.execv os.execvp os.spawnl torch.hub.load torch.jit.load "
    "pandas.read_pickle pandas.read_hdf pandas.HDFStore pandas.eval shutil.unpack_archive urllib.request.urlretrieve "
    "gzip.decompress zlib.decompress bz2.decompress lzma.decompress numpy.lib.npyio.NpzFile "
    "torch.distributed.all_gather_object torch.distributed.broadcast_object_list torch.distributed.gather_object "
    "torch.distributed.scatter_object_list subprocess.getoutput subprocess.getstatusoutput".split()
)
METHODS = {"extractall", "read_pickle", "to_pickle", "read_hdf", "unpack_archive", "load_model", "get_state_dict"}
NEEDED = {  # keywords that a call must have, with these values
    "numpy.load": {"allow_pickle": (False,)},
    "numpy.lib.format.read_array": {"allow_pickle": (False,)},
    "torch.load": {"weights_only": (True,)},
    "torch.hub.load_state_dict_from_url": {"weights_only": (True,), "check_hash": (True,)},
    "PIL.Image.open": {"formats": None},
}
ONLY_IN = {
    "urllib.request.urlopen": "models/downloads.py",
    "tarfile.open": "models/archives.py",
    "subprocess.run": "models/Xgboost/trees.py",
    "subprocess.Popen": None,
}


def names_of(tree):
    """{name in a file: what it is called in full}."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for part in node.names:
                known[part.asname or part.name.partition(".")[0]] = (
                    part.name if part.asname else part.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {part.asname or part.name: f"{node.module}.{part.name}" for part in node.names}
    return known


def full_name(node, known):
    """The whole name of a function, "" for what is none."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{full_name(node.value, known)}.{node.attr}"
    if isinstance(node, ast.Call) and full_name(node.func, known) == "getattr" and len(node.args) > 1:
        if isinstance(node.args[1], ast.Constant):
            return f"{full_name(node.args[0], known)}.{node.args[1].value}"
    return ""


def faults(text, path):
    """What is not safe in a file, in a line each."""
    tree = ast.parse(text)
    known, called, found = names_of(tree), set(), []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None)
            names = [part.name for part in node.names] + ([module] if module else [])
            names += [f"{module}.{part.name}" for part in node.names] if module else []
            found += [f"{path}:{node.lineno} imports {name}" for name in names if name in NEVER]
        if isinstance(node, ast.Call):
            called.add(node.func)
            found += _call(node, full_name(node.func, known), path)
    for node in ast.walk(tree):  # a function that is handed on cannot be followed
        if isinstance(node, (ast.Name, ast.Attribute)) and node not in called:
            name = full_name(node, known)
            if name in NEEDED or name in REFUSED and "." in name:
                found.append(f"{path}:{node.lineno} hands {name} on")
    return found


def _call(node, name, path):
    given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else k.value for k in node.keywords}
    where = f"{path}:{node.lineno} calls {name or '?'}"
    if name in REFUSED or isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        return [where]
    if (
        name in ONLY_IN
        and path != ONLY_IN[name]
        and not path.startswith("scripts/fuzzing/")
        or given.get("shell") not in (None, False)
    ):
        return [where]
    wanted = NEEDED.get(name, {})
    return [
        f"{where} without {key}"
        for key, values in wanted.items()
        if key not in given or values is not None and given[key] not in values
    ]


def test_no_file_of_the_project_loads_code():
    paths = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    found = [line for path in paths for line in faults(path.read_text(), path.relative_to(REPOSITORY).as_posix())]
    assert len(paths) > 100 and not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "from torchvision import datasets",
        "from torchvision.datasets import CIFAR10 as C",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "from numpy import load as read\nread(path, **options)",
        "import numpy as np\nread = np.load",
        "import torch\ntorch.load(path, map_location='cpu')",
        "import torch\ngetattr(torch, 'load')(path)",
        "import torch as t\nt.hub.load_state_dict_from_url(url, weights_only=True)",
        "import torch\ntorch.hub.load('a/b', 'c')",
        "weights.get_state_dict(progress=False)",
        "from PIL import Image\nImage.open(path)",
        "import pandas as pd\npd.read_pickle(path)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "import os\nos.system(line)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "from urllib.request import urlopen\nurlopen(url)",
        "import gzip\ngzip.decompress(data)",
        "booster.load_model(path)",
        "eval(text)",
    ],
)
def test_such_calls_are_found(text):
    assert faults(text, "models/sample.py")


def test_calls_that_are_safe_are_not():
    text = "import numpy as np, torch\nfrom PIL import Image\nnp.load(p, allow_pickle=False)\n"
    text += "torch.load(p, weights_only=True)\nImage.open(p, formats=FORMATS)\nmodel.eval()\nre.compile('a')\n"
    assert not faults(text, "models/sample.py")


def test_pictures_are_of_formats_that_start_no_program():
    assert set(FORMATS) == {"PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"}


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def hostile_files(folder):
    """A pickle that runs code, bare and as torch.save writes it."""
    buffer = io.BytesIO()
    torch.save({"conv1.weight": Hostile(folder)}, buffer)
    return pickle.dumps(Hostile(folder)), buffer.getvalue()


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("name", ["resnet18-f37072fd.pth", "vgg16-397923af.pth", "cifar10_resnet20-4118986f.pt"])
def test_a_hostile_file_in_torchs_cache_runs_nothing(tmp_path, monkeypatch, refused, name, kind):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    path = tmp_path / "home" / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(hostile_files(tmp_path / "ran")[kind])
    said = f"{name} is not https://.*its sha256 is .*: delete it, so that it is fetched again"
    if name.startswith("cifar10"):
        for weights in ("hub", "auto"):
            line = refused(cnn_train.main, "--dataset", "digits", "--weights", weights, "--saved_path", tmp_path / "r")
            assert name in line and "delete it" in line
    else:
        with pytest.raises(UserError, match=said):
            backbone(name.partition("-")[0])
    with pytest.raises(UserError, match=said):
        hub_state(f"https://download.pytorch.org/models/{name}")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "r").exists()
    assert path.exists(), "what is not ours is not removed"


def test_the_sample_is_hostile(tmp_path):
    for content in hostile_files(tmp_path / "ran")[:1]:
        pickle.loads(content)
    assert (tmp_path / "ran").is_dir()


def test_a_hostile_file_that_is_named_runs_nothing(tmp_path, refused):
    for content in hostile_files(tmp_path / "ran"):
        (tmp_path / "w.pt").write_bytes(content)
        line = refused(
            cnn_train.main, "--dataset", "digits", "--weights", tmp_path / "w.pt", "--saved_path", tmp_path / "r"
        )
        assert "damaged or holds more than tensors" in line
        with pytest.raises(UserError, match="damaged or holds more than tensors"):
            backbone("resnet18", str(tmp_path / "w.pt"))
    assert not (tmp_path / "ran").exists()
