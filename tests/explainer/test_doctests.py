"""The examples of the documentation."""

import doctest

from conftest import REPOSITORY

import explainer
from explainer import decomposition
from explainer.decomposition.registry import MODULES
from explainer.label_errors.find import COLUMNS
from models.CDEP.data import DATASETS


def test_the_examples_of_the_library_page_run():
    result = doctest.testfile(str(REPOSITORY / "docs" / "attribution.md"), module_relative=False)
    assert result.attempted > 15 and not result.failed


def test_the_examples_of_the_decomposition_page_run():
    try:
        result = doctest.testfile(str(REPOSITORY / "docs" / "decomposition.md"), module_relative=False)
    finally:
        for kind in [kind for kind in MODULES if kind.__name__ == "Double"]:
            del MODULES[kind]
    assert result.attempted > 10 and not result.failed
    text = (REPOSITORY / "docs" / "decomposition.md").read_text()
    assert [name for name in decomposition.__all__ if name not in text] == []


def test_the_examples_of_the_penalty_page_run():
    result = doctest.testfile(str(REPOSITORY / "docs" / "cdep.md"), module_relative=False)
    assert result.attempted > 5 and not result.failed
    text = (REPOSITORY / "docs" / "cdep.md").read_text()
    assert all(f"`{name}" in text for name in DATASETS)


def test_the_page_names_everything_that_is_public():
    text = (REPOSITORY / "docs" / "attribution.md").read_text()
    classes = [n for n in explainer.__all__ if n[0].isupper() and n not in ("METHODS", "DETECTORS")]
    names = [*classes, *explainer.attribution.SOLVERS]
    public = [n for n in dir(explainer.attribution.base.Attributor) if not n.startswith("_")]
    for name in [*names, *public]:
        if name not in ("method", "unit", "features", "trees", "logits"):
            assert f"`{name}" in text or f".{name}(" in text, name


def test_the_example_of_the_page_of_label_errors_runs():
    result = doctest.testfile(str(REPOSITORY / "docs" / "label_errors.md"), module_relative=False)
    assert result.attempted > 5 and not result.failed


def test_the_page_of_label_errors_names_every_detector_and_column():
    text = (REPOSITORY / "docs" / "label_errors.md").read_text()
    for name in ("DETECTORS", *explainer.DETECTORS, *COLUMNS):
        assert f"`{name}`" in text or f".{name}`" in text, name
