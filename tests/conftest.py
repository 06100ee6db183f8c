"""One chain of commands, run once, below a root of its own; and command lines inside the test's process."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from PIL import Image

import config
from explainer import calculate_influence, calculate_ours_weights, calculate_representer_weights

matplotlib.use("Agg")
REPOSITORY = Path(__file__).resolve().parents[1]

# The README's commands at a scale for tests: what follows the end of a script's path is added to its arguments.
SMALL = {
    "experiment_dataset_debugging_Xgboost.py": "--num_of_run 1 --average_over_runs 1",
    "experiment_dataset_debugging_cnn.py": "--num_of_run 1 --num_of_samples 200 --epochs 1 --retrain_epochs 1 "
    "--epoch 100 --weights carried",
    "CNN/train.py": "--num_of_samples 200 --epochs 1 --weights carried",
    "CNN/pretrain.py": "--num_of_samples 200 --epochs 1 --output {root}/ten.pt",
    "benchmark.py explainers": "--n 500 --d 16 --repeats 1",
    "benchmark.py cnn": "--num_of_samples 60 --epochs 1 --seeds 1",
    "benchmark.py rnn": "--num_of_samples 100 --max_length 30 --hidden_dim 8 --seconds 0.2 --evaluated 10",
    "benchmark.py attribution": "--n 1000 --d 16 --m 50 --repeats 1",
    "benchmark.py scale": "--n 3000 --d 16 --m 50 --repeats 1",
    "evaluate_explanations.py": "--tests 20 --number 5 --halves 5",
    "adversarial.py": "--number 2",
    "CDEP/train.py": "--epochs 1 --steps 2",
    "study_label_errors.py": "--sources wine --seeds 1",
    "check_leave_one_out.py": "--points 10",
    "CDEP/experiment.py": "--epochs 1",
    "RNN/train.py": "--num_of_samples 200 --max_length 60 --hidden_dim 8 --epochs 2",
    "experiment_dataset_debugging_rnn.py": "--num_of_run 1 --num_of_samples 60 --max_length 30 --hidden_dim 4 "
    "--epochs 1 --retrain_epochs 1 --average_over_runs 1",
    "xgboost_sensitivity.py": "--num_of_run 1",
}
NEEDS_IMAGES = "pretrain.py", "adversarial.py"  # nothing carried takes their place
REVIEWS = 150  # of IMDB, for each class of each part
CARRIED = {  # what takes the place of data sets that are not there
    ("CNN/train.py", "debugging_cnn.py", "benchmark.py cnn", "prepare.py --dataset"): "--dataset digits",
    ("explain.py --model CNN", "find_label_errors.py --model CNN"): "--dataset digits",
    ("memorization.py",): "--path ../models/CNN/saved_models/experiment_dataset_debugging",
    ("RNN/train.py", "debugging_rnn.py", "benchmark.py rnn"): "--dataset snippets --use_pretrained False",
    ("--dataset text_",): "--texts snippets",
}


def readme_commands():
    """Every `python <script> ...` of the README: the lines of its code blocks, then those within its sentences."""
    text = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.S | re.M)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(python [^`\n]+)`", text)
    return [line for line in dict.fromkeys(lines) if re.match(r"python \w+/\S+\.py", line)]


def real_data(folder):
    """A folder of the real data sets, from $RPS_LJE_DATA, else from ../shared/data; None where there are none.

    All images, and the first reviews of IMDB, with vectors that stand in for GloVe's where these are not there.
    """
    unpack = REPOSITORY.parent / "shared" / "data" / "unpack"
    if os.environ.get("RPS_LJE_DATA"):
        source = Path(os.environ["RPS_LJE_DATA"]).resolve()
    elif unpack.exists():
        source = folder / "unpacked"
        subprocess.run(["bash", str(unpack), str(source)], check=True, capture_output=True)
    else:
        return None
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
    """Run `python script arguments` with results below `root`, from another folder than the repository's."""
    _, script, *arguments = shlex.split(line)
    command = [sys.executable, str(REPOSITORY / script), *arguments]
    for end, more in SMALL.items():
        if f"{line} ".find(f"{end} ") > 0:
            command += more.format(root=root).split()
    for scripts, more in CARRIED.items():
        if data is None and any(end in line for end in scripts):
            command += more.split()
    environment = {**os.environ, "RPS_LJE_ROOT": str(root), "RPS_LJE_DATA": str(data or root / "data")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folder of the real data sets, or None."""
    return real_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def chain(tmp_path_factory, data):
    """The root below which all the README's commands have run, and what each of them printed.

    On the real images where there are any, else on the carried ones; what NEEDS_IMAGES names needs the real ones.
    """
    root, folder = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("elsewhere")
    printed = {}
    for line in readme_commands():
        if data is None and any(script in line for script in NEEDS_IMAGES):
            continue
        done = run_script(line, root, folder, data)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed[line] = done.stdout
    return root, printed


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
