"""What the README says: its commands in small, one after the other, and the notebooks after them."""

import json
import os
import re
import shutil
import subprocess

import nbformat
import numpy as np
import pytest
from commands import MANIFEST, NOTEBOOKS, REPOSITORY, entry, notebooks, readme_commands
from conftest import run_script
from nbclient import NotebookClient


def test_the_manifest_has_each_command_of_the_readme_once():
    lines = readme_commands()
    assert len(lines) >= 12
    for line in lines:
        assert sum(command.matches(line) for command in MANIFEST) == 1, line
    for command in MANIFEST:
        assert any(command.matches(line) for line in lines), command


def wrote(printed):
    for line, text in printed.items():
        if "explainer/" in line or "train.py" in line:
            assert "written: " in text, line


def test_every_command_that_needs_no_real_data_ran_and_said_where_it_wrote(chain):
    root, printed = chain
    assert list(printed) == [line for line in readme_commands() if entry(line).runs(real=False)]
    wrote(printed)
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


@pytest.mark.parametrize("line", [line for line in readme_commands() if not entry(line).runs(real=False)])
def test_commands_without_their_data_end_in_one_line(line, chain, tmp_path):
    done = run_script(line, chain[0], tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and done.stderr.count("error: ") == 1


def test_every_command_that_reads_real_data_ran_on_them(real_chain):
    _, printed = real_chain
    assert len(printed) >= 12
    wrote(printed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_thin_and_was_executed(path):
    committed = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in committed["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code), "committed without its outputs"
    assert sum(len(cell["source"]) for cell in code) <= 80, "a notebook is to be thin"
    assert str(REPOSITORY) not in json.dumps(committed)
    succeeded(committed["cells"])


def succeeded(cells):
    text = json.dumps([cell.get("outputs", []) for cell in cells])
    assert '"error"' not in text and "Traceback" not in text


def executed(path, root, monkeypatch, data):
    monkeypatch.setenv("RPS_LJE_ROOT", str(root))
    monkeypatch.setenv("RPS_LJE_DATA", str(data))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    succeeded(notebook.cells)


@pytest.mark.parametrize("path", notebooks(real=False), ids=lambda path: path.name)
def test_notebook_executes(chain, path, monkeypatch):
    executed(path, chain[0], monkeypatch, chain[0] / "data")


@pytest.mark.parametrize("path", notebooks(real=True), ids=lambda path: f"{path.parts[-3]}/{path.name}")
def test_notebook_executes_on_real_data(real_chain, real_data, path, monkeypatch):
    executed(path, real_chain[0], monkeypatch, real_data)


def test_readme_links_and_files_are_there():
    text = (REPOSITORY / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (REPOSITORY / target).exists(), target
    assert "@" not in re.sub(r"@\w+\{", "", text).replace("@inproceedings", ""), "a number is still to be filled in"


def test_scripts_run_under_bash_and_are_what_ci_calls():
    for script in ("scripts/reproduce.sh", "scripts/test.sh", "scripts/setup.sh", "scripts/supervised.sh", ".ci/run"):
        assert subprocess.run(["bash", "-n", str(REPOSITORY / script)]).returncode == 0
    assert "scripts/test.sh" in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.parametrize("statuses", [(0, 0), (1, 0), (0, 1), (0, None)])
def test_ci_runs_what_a_stranger_has_and_then_what_needs_the_data(statuses, tmp_path):
    clone = tmp_path / "a clone"
    for folder in (clone / ".ci", clone / "scripts", tmp_path / "temporary"):
        folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", clone / ".ci")
    shutil.copy(REPOSITORY / "scripts" / "supervised.sh", clone / "scripts")
    (clone / "scripts" / "test.sh").write_text(
        f'echo "ran $* on ${{RPS_LJE_DATA-nothing}}"; [ $# = 0 ] && exit {statuses[0]}; '
        f'[ -e "$RPS_LJE_DATA/unpacked" ] && exit {statuses[1] or 0}; exit 9'
    )
    if statuses[1] is not None:
        (tmp_path / "shared" / "data").mkdir(parents=True)
        (tmp_path / "shared" / "data" / "unpack").write_text('mkdir "$1" && touch "$1/unpacked"')
    environment = {**os.environ, "RPS_LJE_DATA": "/of/the/user", "TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run(["bash", str(clone / ".ci" / "run")], env=environment, capture_output=True, text=True)
    ran = [line for line in done.stdout.splitlines() if line.startswith("ran ")]
    assert ran[0] == "ran  on nothing" and len(ran) == (1 if statuses[0] or statuses[1] is None else 2)
    assert all(line.startswith(f"ran -m real_data on {tmp_path / 'temporary'}") for line in ran[1:])
    assert done.returncode == max(status or 0 for status in statuses), done.stderr
    assert not list((tmp_path / "temporary").iterdir())


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
