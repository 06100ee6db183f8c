"""The examples of the documentation."""

import doctest

from conftest import REPOSITORY

import explainer


def test_the_examples_of_the_library_page_run():
    result = doctest.testfile(str(REPOSITORY / "docs" / "attribution.md"), module_relative=False)
    assert result.attempted > 15 and not result.failed


def test_the_page_names_everything_that_is_public():
    text = (REPOSITORY / "docs" / "attribution.md").read_text()
    names = [n for n in explainer.__all__ if n[0].isupper() and n != "METHODS"] + list(explainer.attribution.SOLVERS)
    public = [n for n in dir(explainer.attribution.base.Attributor) if not n.startswith("_")]
    for name in [*names, *public]:
        if name not in ("method", "unit", "features", "trees", "logits"):
            assert f"`{name}" in text or f".{name}(" in text, name
