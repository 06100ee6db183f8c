"""What the README says: its commands in small, one after the other, and the notebooks after them."""

import json
import os
import re

import nbformat
import numpy as np
import pytest
from conftest import REPOSITORY, readme_commands
from nbclient import NotebookClient

NOTEBOOKS = sorted(path for path in REPOSITORY.glob("*/**/*.ipynb") if ".venv" not in path.parts)


def test_every_command_ran_and_said_where_it_wrote(chain):
    root, printed = chain
    assert list(printed) == readme_commands() and len(printed) >= 12
    for line, text in printed.items():
        if "explainer/" in line or "train.py" in line:
            assert "written: " in text, line
    base = root / "models" / "Xgboost" / "saved_models" / "base"
    assert {path.name for path in (base / "calculated_weights").iterdir()} == {
        "ours_weight_matrix_with_lr_0.01.npz",
        "ours_weight_matrix_with_lr_0.0001.npz",
        "influence_weight_matrix.npz",
        "representer_weight_matrix.npz",
    }


def test_the_comparison_reports_the_run_that_was_made(chain):
    root, _ = chain
    report = (root / "dataset_debugging" / "REPRODUCTION.md").read_text()
    assert "## XGBoost on German Credit" in report and "1 run, 1 refit per checkpoint" in report
    section = report.partition("## XGBoost on German Credit")[2]
    rows = [line for line in section.splitlines() if re.match(r"\| \d+% \|", line)]
    assert len(rows) == 40  # 20 checkpoints of two quantities


def test_margins_are_reproduced_by_their_last_layer(chain):
    _, printed = chain
    (text,) = (text for line, text in printed.items() if "saved_models/margin" in line and "explainer" in line)
    differences = [float(number) for number in re.findall(r"last layer itself: L1 difference (\S+)", text)]
    assert max(differences) < 1e-6
    (text,) = (text for line, text in printed.items() if line.endswith("ours_weights.py --model Xgboost --lr 0.01"))
    assert min(float(number) for number in re.findall(r"last layer itself: L1 difference (\S+)", text)) > 0.05


def test_the_library_example_runs(chain, monkeypatch):
    root, _ = chain
    monkeypatch.setattr("config.PROJECT_ROOT", root)
    block, *_ = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.S | re.M)
    scope = {}
    with pytest.warns(match="H has rank"):
        exec(block, scope)
    saved = root / "models/Xgboost/saved_models/base/calculated_weights/ours_weight_matrix_with_lr_0.01.npz"
    np.testing.assert_array_equal(scope["weights"].arrays["weight_matrix"].numpy(), np.load(saved)["weight_matrix"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_executed_and_executes(chain, data, path, monkeypatch):
    committed = json.loads(path.read_text())
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "committed without its outputs"
    assert sum(len(cell["source"]) for cell in code) <= 80, "a notebook is to be thin"
    assert str(REPOSITORY) not in json.dumps(committed)
    on_real_images = path.name in ("images.ipynb", "adversarial.ipynb")
    if data is None and ({"CNN", "RNN"} & set(path.parts) or on_real_images):
        pytest.skip("no CIFAR-10 and IMDB: set RPS_LJE_DATA")
    monkeypatch.setenv("RPS_LJE_ROOT", str(chain[0]))
    monkeypatch.setenv("RPS_LJE_DATA", str(data))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    for cells in (committed["cells"], notebook.cells):
        text = json.dumps([cell.get("outputs", []) for cell in cells])
        assert '"error"' not in text and "Traceback" not in text


def test_readme_links_and_files_are_there():
    text = (REPOSITORY / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
    assert "@" not in re.sub(r"@\w+\{", "", text).replace("@inproceedings", ""), "a number is still to be filled in"


def test_scripts_run_under_bash_and_are_what_ci_calls():
    for script in ("reproduce.sh", "test.sh", "setup.sh"):
        assert os.system(f"bash -n {REPOSITORY / 'scripts' / script}") == 0
    assert "scripts/test.sh" in (REPOSITORY / ".ci" / "run").read_text()


def test_constraints_satisfy_requirements():
    from packaging.requirements import Requirement

    pinned = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().lower().splitlines() if "==" in line
    )
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line and not line.startswith("-"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(pinned.get(requirement.name, "0.17.6")), line
