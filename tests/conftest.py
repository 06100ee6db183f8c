"""Nothing outside the clone reaches a test; chains of commands, run once; command lines inside the test's process."""

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REAL_DATA = os.environ.pop("RPS_LJE_DATA", "")
OUTSIDE = Path(tempfile.mkdtemp(prefix="rps_lje_tests_"))  # in place of the home folder and of a used clone
atexit.register(shutil.rmtree, OUTSIDE, ignore_errors=True)
for name in list(os.environ):
    if re.match(r"XDG_|JUPYTER_|IPYTHONDIR|TORCH_HOME|MPL|RANK$|LOCAL_RANK|WORLD_SIZE|MASTER_(ADDR|PORT)$", name):
        del os.environ[name]
os.environ |= {"RPS_LJE_ROOT": str(OUTSIDE / "root"), "HOME": str(OUTSIDE)}
os.environ |= dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
)  # no network
os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1")

import matplotlib  # noqa: E402 - from here on: what reads the environment when it is imported
import pytest  # noqa: E402
import torch  # noqa: E402
from commands import REPOSITORY, entry, readme_commands  # noqa: E402
from PIL import Image  # noqa: E402

import config  # noqa: E402
from explainer import calculate_influence, calculate_ours_weights, calculate_representer_weights  # noqa: E402

matplotlib.use("Agg")
REVIEWS = 150  # of IMDB, for each class of each part
NO_DATA = "needs real data (CIFAR-10, IMDB, MNIST): set RPS_LJE_DATA to their folder"


def pytest_configure(config):
    config.addinivalue_line("markers", "real_data: needs the real data sets below $RPS_LJE_DATA")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if "real_data" in getattr(item, "fixturenames", ()):
            item.add_marker("real_data")


def few_reviews(source, folder):
    """A folder of the real data sets in `source`: all images, and the first reviews of IMDB.

    Other vectors stand in for GloVe's where these are not there.
    """
    chosen = folder / "chosen"
    chosen.mkdir()
    for path in source.iterdir():
        if path.name not in ("aclImdb", "vectors"):
            (chosen / path.name).symlink_to(path)
    for below in ("train/neg", "train/pos", "test/neg", "test/pos"):
        (chosen / "aclImdb" / below).mkdir(parents=True)
        for path in sorted((source / "aclImdb" / below).iterdir())[:REVIEWS]:
            (chosen / "aclImdb" / below / path.name).symlink_to(path)
    if not (chosen / "glove.6B.100d.txt").exists():
        (chosen / "glove.6B.100d.txt").symlink_to(source / "vectors" / "imdb.skipgram.100d.txt")
    return chosen


def run_script(line, root, folder, data=None, timeout=300):
    """Run a README's command in small with results below `root`, from another folder than the repository's."""
    _, script, *arguments = shlex.split(line)
    known = entry(line)
    more = known.small.format(root=shlex.quote(str(root)))
    if data is None and known.carried:
        more = f"{more} {known.carried}"
    command = [sys.executable, str(REPOSITORY / script), *arguments, *shlex.split(more)]
    environment = {**os.environ, "RPS_LJE_ROOT": str(root), "RPS_LJE_DATA": str(data or root / "data")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


def run_all(lines, root, folder, data=None):
    """{line: what it printed}; each has succeeded."""
    printed = {}
    for line in lines:
        done = run_script(line, root, folder, data)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed[line] = done.stdout
    return printed


@pytest.fixture(scope="session")
def real_data(tmp_path_factory):
    """The folder of the real data sets, with few reviews; tests that ask for it are marked real_data."""
    if not REAL_DATA:
        pytest.skip(NO_DATA)
    source = Path(REAL_DATA).expanduser().resolve()
    if missing := [name for name in ("aclImdb/train/neg", "aclImdb/test/pos", "mnist") if not (source / name).exists()]:
        pytest.fail(
            f"RPS_LJE_DATA: no {', '.join(missing)} in {source}: give a folder with all data sets, or leave it unset"
        )
    return few_reviews(source, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """The root below which the README's commands have run on what this repository carries, and what each printed."""
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("elsewhere")
    return root, run_all([line for line in readme_commands() if entry(line).runs(real=False)], root, folder)


@pytest.fixture(scope="session")
def real_chain(tmp_path_factory, real_data):
    """The root below which the README's commands that read real data have run, and what each printed."""
    root, folder = tmp_path_factory.mktemp("real_root"), tmp_path_factory.mktemp("elsewhere")
    return root, run_all([line for line in readme_commands() if entry(line).data], root, folder, real_data)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Call a command's main: command(main, *arguments) -> (exit status, stdout, stderr), results below tmp_path."""
    monkeypatch.setattr(config, "PROJECT_ROOT", tmp_path)

    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        status = 0
        try:
            config.run_command(main)
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def refused(command):
    """Assert that a command ends in one line, `error: ...`, and status 2; returns the line."""

    def check(main, *arguments):
        status, _, errors = command(main, *arguments)
        assert status == 2
        lines = [
            line
            for line in re.split(r"[\r\n]", errors)
            if line.strip() and not re.search(r"(step|epoch|it)/s|s/(step|epoch)", line)
        ]
        assert len(lines) == 1 and lines[0].startswith("error: "), errors  # beside the progress bar
        return lines[0]

    return check


@pytest.fixture
def class_folders(tmp_path):
    """Four training and two test images for each of two classes, each of one colour of its own."""
    for part, number in (("train", 4), ("test", 2)):
        for c, name in enumerate(("automobile", "horse")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (32, 32), (i, 100 * c, 7)).save(folder / f"{i:04}.png")
    return tmp_path / "images"


@pytest.fixture
def lstm_run(command, tmp_path, monkeypatch):
    """A run folder with a tiny LSTM, trained on 60 of the carried snippets, and the weights of all methods."""
    from models.RNN import train, utils_imdb  # here: spaCy and torchtext are slow to import

    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path)
    options = "--dataset snippets --use_pretrained False --hidden_dim 4 --num_of_samples 60 --max_length 3 --epochs 1"
    run = tmp_path / "run"
    assert command(train.main, *options.split(), "--saved_path", run)[0] == 0
    for module in (calculate_ours_weights, calculate_influence, calculate_representer_weights):
        assert command(module.main, "--model", "RNN", "--saved_path", run)[0] == 0
    return run


@pytest.fixture
def imdb_folder(tmp_path):
    """Ten training and four test reviews in IMDB's layout."""
    for part, number in (("train", 5), ("test", 2)):
        for name in ("neg", "pos"):
            below = tmp_path / "aclImdb" / part / name
            below.mkdir(parents=True)
            for i in range(number):
                (below / f"{i}_{3 if name == 'neg' else 9}.txt").write_text(f"It's a {name} film,<br /><br />no. {i}!")
    return tmp_path


@pytest.fixture(scope="session")
def random_images():
    """Images (9,32,32,3) in 0 ... 255."""
    return torch.randint(256, (9, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def data():
    """Inputs (50,6) of three classes."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 6, generator=g)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
