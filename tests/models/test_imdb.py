"""The reviews: tokens, vocabulary, split, cache, vectors; on the carried snippets and on files made here."""

import re
import tarfile
import zipfile

import numpy as np
import pytest

import config
from config import UserError
from models.RNN import utils_imdb
from models.RNN.texts import Lines, tokens
from models.RNN.utils_imdb import load
from models.RNN.vectors import GLOVE, vectors


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The imdb_folder for results and caches."""
    monkeypatch.setattr(utils_imdb, "PROJECT_ROOT", tmp_path / "root")
    monkeypatch.setattr(config, "PROJECT_ROOT", tmp_path / "root")
    return tmp_path / "root"


def test_tokens_are_those_of_spacys_english_rules_in_lower_case():
    assert tokens("I don't like it: $5.00 for   Mr. Bean's U.K. film!") == (
        ["i", "do", "n't", "like", "it", ":", "$", "5.00", "for", "mr.", "bean", "'s", "u.k.", "film", "!"]
    )


def test_labels_and_texts_are_those_of_the_folders(imdb_folder, root):
    corpus = load("imdb", imdb_folder)
    assert len(corpus.train) == 7 and len(corpus.validation) == 3 and len(corpus.test) == 4
    assert corpus.test.labels.tolist() == [0, 0, 1, 1]
    rows = np.concatenate([corpus.train.rows, corpus.validation.rows])
    assert sorted(rows) == list(range(10)) and (np.diff(corpus.train.rows) > 0).all()
    for part in (corpus.train, corpus.validation, corpus.test):
        for i in range(len(part)):
            text = corpus.source.text(part.rows[i])
            assert ("pos" in text) == part.labels[i] and "<br" not in text
            known = [word if word in corpus.words else "<unk>" for word in tokens(text)]
            assert [corpus.words[w] for w in part.review(i)] == known


def test_the_vocabulary_is_the_most_frequent_words_of_the_training_part(imdb_folder, root, monkeypatch):
    monkeypatch.setattr(utils_imdb, "MAX_WORDS", 4)
    corpus = load("imdb", imdb_folder)
    assert corpus.words == ["<unk>", "<pad>", "!", "'s", ",", "."]  # as frequent as others, in alphabetical order
    assert corpus.train.words.max() == 5 and (corpus.train.words == 0).any()


def test_the_carried_snippets(root):
    corpus = load("snippets")
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [5179, 2219, 3170]
    assert abs(corpus.train.labels.mean() - 0.5) < 0.02
    i = int(np.flatnonzero(corpus.train.rows == 0)[0]) if 0 in corpus.train.rows else 0
    text = corpus.source.text(corpus.train.rows[i])
    assert len(tokens(text)) == len(corpus.train.review(i))
    assert utils_imdb.SNIPPETS.stat().st_size == 1383098


def same(one, other):
    """Whether two corpora have the same words and the same reviews."""
    parts = [(getattr(one, name), getattr(other, name)) for name in utils_imdb.PARTS]
    return one.words == other.words and all(
        np.array_equal(getattr(a, field), getattr(b, field)) for a, b in parts for field in utils_imdb._FIELDS
    )


def test_the_cache_is_used_and_made_again_when_something_changes(imdb_folder, root, monkeypatch):
    first = load("imdb", imdb_folder)
    made = []
    real = utils_imdb._tokenized
    monkeypatch.setattr(utils_imdb, "_tokenized", lambda *a: made.append(1) or real(*a))
    assert same(load("imdb", imdb_folder), first) and not made
    (path,) = (root / "models/RNN/data/cache").iterdir()
    content = bytearray(path.read_bytes())  # one damaged word number
    place = content.find(first.train.words.tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert same(load("imdb", imdb_folder), first) and len(made) == 1
    (imdb_folder / "aclImdb/train/pos/0_9.txt").write_text("Another text.")
    assert not same(load("imdb", imdb_folder), first) and len(made) == 2
    monkeypatch.setattr(utils_imdb, "MAX_WORDS", 5)
    load("imdb", imdb_folder)
    assert len(made) == 3


def test_the_archive_is_unpacked_when_only_it_is_there(imdb_folder, root, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with tarfile.open(home / "aclImdb_v1.tar.gz", "w:gz") as tar:
        tar.add(imdb_folder / "aclImdb", "aclImdb")
    assert len(load("imdb", home).train) == 7
    assert sorted(p.name for p in home.iterdir()) == ["aclImdb", "aclImdb_v1.tar.gz"]


def test_unusable_reviews_are_named_and_counted_and_left_out_on_request(imdb_folder, root):
    (imdb_folder / "aclImdb/train/neg/1_3.txt").write_bytes(b"\xff\xfe")
    (imdb_folder / "aclImdb/test/pos/0_9.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"2 of 14 reviews are empty or no UTF-8, the first is train/neg/1_3.txt"):
        load("imdb", imdb_folder)
    corpus = load("imdb", imdb_folder, skip=True)
    assert len(corpus.train) + len(corpus.validation) == 9 and len(corpus.test) == 3


def test_missing_data_say_where_they_were_looked_for(root, tmp_path, monkeypatch):
    def unreachable(url):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UserError, match="no IMDB in .*aclImdb_v1.tar.gz.*no route to host.*--dataset snippets"):
        load("imdb", tmp_path)
    with pytest.raises(UserError, match="no word vectors in .*glove.6B.100d.txt.*no route to host.*--vectors"):
        vectors(["film"], data_dir=tmp_path)
    (tmp_path / "aclImdb/train/pos").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no reviews"):
        load("imdb", tmp_path)


def test_vectors_of_known_words_are_the_files_and_others_are_drawn(tmp_path):
    rows = {"film": np.arange(100) / 8, "bad": np.ones(100), "unused": np.zeros(100)}
    path = tmp_path / "v.txt"
    path.write_text("\n".join(f"{word} {' '.join(map(str, row))}" for word, row in rows.items()) + "\n")
    found, count = vectors(["<unk>", "<pad>", "bad", "strange", "film"], path)
    assert found.shape == (5, 100) and found.dtype == np.float32 and count == 2
    np.testing.assert_array_equal(found[[2, 4]], np.array([rows["bad"], rows["film"]], np.float32))
    assert (found[:2] == 0).all() and 0.5 < found[3].std() < 1.5
    np.testing.assert_array_equal(found, vectors(["<unk>", "<pad>", "bad", "strange", "film"], path)[0])
    path.write_text("3 100\n" + path.read_text())  # as word2vec writes it
    again, count = vectors(["<unk>", "<pad>", "bad", "strange", "film"], path)
    np.testing.assert_array_equal(found, again)
    assert count == 2


def test_gloves_archive_is_unpacked_once_and_refused_where_it_is_damaged(tmp_path):
    archive, rows = tmp_path / "glove.6B.zip", np.random.default_rng(0).normal(size=(300, 100)).round(4)
    lines = [f"word{i} {' '.join(map(str, row))}" for i, row in enumerate(rows)]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(GLOVE, "\n".join(lines) + "\n")
    whole = archive.read_bytes()
    np.testing.assert_allclose(vectors(["word7"] * 3, data_dir=tmp_path)[0][2], rows[7], rtol=1e-6)
    for begin in range(60, len(whole), len(whole) // 40):  # within the vectors, and in the directory at the end
        (tmp_path / GLOVE).unlink(missing_ok=True)
        archive.write_bytes(whole[:begin] + b"\xff" * 64 + whole[begin + 64 :])
        with pytest.raises(UserError, match="cannot unpack .*glove.6B.zip .*: delete it, so that it is fetched again"):
            vectors(["word7"], data_dir=tmp_path)
        assert not (tmp_path / GLOVE).exists()


def test_an_incomplete_folder_beside_the_archive_is_named_and_left_alone(imdb_folder, root, tmp_path):
    home = tmp_path / "home"
    (home / "aclImdb" / "train" / "neg").mkdir(parents=True)
    with tarfile.open(home / "aclImdb_v1.tar.gz", "w:gz") as tar:
        tar.add(imdb_folder / "aclImdb", "aclImdb")
    with pytest.raises(UserError, match="aclImdb holds no train/pos, so that it is not all of IMDB: remove it"):
        load("imdb", home)
    assert sorted(p.name for p in home.iterdir()) == ["aclImdb", "aclImdb_v1.tar.gz"]


def test_too_few_reviews_to_split_are_counted(imdb_folder, root):
    for path in (imdb_folder / "aclImdb/train").rglob("*.txt"):
        if not path.name.startswith("0_"):
            path.unlink()
    with pytest.raises(UserError, match="there are 2 usable training and 4 usable test reviews"):
        load("imdb", imdb_folder)


@pytest.mark.parametrize("number", [60, 5178, 6000])
def test_the_number_of_samples_that_is_named_is_the_largest_that_works(root, number):
    corpus = load("snippets")
    try:
        chosen = utils_imdb.sample(corpus, number)
    except UserError as error:
        most = int(re.search("give at most ([0-9]+) of", str(error)).group(1))
        assert most < number and len(utils_imdb.sample(corpus, most)["train"]) == most
        with pytest.raises(UserError):
            utils_imdb.sample(corpus, most + 1)
    else:
        assert number == 60
        for name, part in (("train", corpus.train), ("validation", corpus.validation), ("test", corpus.test)):
            labels = part.labels[chosen[name]]
            assert len(labels) == 60 * len(part) // len(corpus.train) and labels.sum() == len(labels) // 2


def test_a_home_that_does_not_exist_is_named():
    for call in (lambda path: load("imdb", path), lambda path: vectors(["film"], path)):
        with pytest.raises(UserError, match="got the path ~nosuchuser/x: .*; write it out"):
            call("~nosuchuser/x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("film 1 2 3\n", "line 1 has 3 numbers after its word, expected 100"),
        ("1 3\nother 1 2 3\n", "line 2 has 3 numbers after its word, expected 100"),
        ("film " + "x " * 100, "is no text file of vectors"),
        (None, "cannot read the vectors"),
        ("\n", "line 1 has 0 numbers after its word"),
        ("other " + "1 " * 100, "has a vector of none of the 1 words"),
        ("film " + "nan " * 100, "has a vector that is not finite, of 'film'"),
    ],
)
def test_unusable_vectors_are_refused(tmp_path, content, said):
    path = tmp_path / "v.txt"
    if content:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        vectors(["film"], path)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"1\t1.5\tgood\n2\tbad\n", "line 2, is no snippet"),
        (b"1\t1.5\tgood\tor not\n", "line 1, is no snippet"),
        (b"1\tnan\tgood\n", "line 1, is no snippet"),
        (b"1\t1e999\tgood\n", "line 1, is no snippet"),
        (b"x\t1.5\tgood\n", "line 1, is no snippet"),
        (b"1\t1.5\t \n", "line 1, is no snippet"),
        (b"\n", "line 1, is no snippet"),
        (b"", "holds no snippets"),
        (b"1\t1.5\t\xf5\n", "is damaged"),
        (None, "not found"),
    ],
)
def test_snippets_that_cannot_be_read_are_refused(content, said, tmp_path):
    path = tmp_path / "snippets.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        Lines(path)
    assert str(refused.value).endswith("take it from the repository again") and "\n" not in str(refused.value)
