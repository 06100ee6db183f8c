"""Damage of bytes, and of lines of text: (what it is in words, the result)."""

STRANGE = "", " ", "x" * 5000, "nan", "1e400", "-1", "\x1b[31m", "=1+1", "../../etc", "\u202e\ufeff"  # texts


def of_bytes(data, rng):
    """(words, bytes) of damaged bytes."""
    chosen = _BYTES[int(rng.integers(len(_BYTES)))]
    return chosen.__name__.strip("_").replace("_", " "), chosen(bytearray(data), rng)


def _at(data, rng, size=1):
    return int(rng.integers(max(1, len(data) - size + 1)))


def _flip(data, rng, begin, end):
    if end > begin:
        data[int(rng.integers(begin, end))] ^= 1 << int(rng.integers(8))
    return data


def _one_bit(data, rng):
    return _flip(data, rng, 0, len(data))


def _a_bit_of_the_head(data, rng):
    return _flip(data, rng, 0, min(256, len(data)))


def _a_bit_of_the_tail(data, rng):
    return _flip(data, rng, max(0, len(data) - 256), len(data))


def _many_bits(data, rng):
    for _ in range(int(rng.integers(2, 40))):
        _flip(data, rng, 0, len(data))
    return data


def _cut_off(data, rng):
    return data[: _at(data, rng)]


def _cut_off_near_the_end(data, rng):
    return data[: max(0, len(data) - int(rng.integers(1, 120)))]


def _head_gone(data, rng):
    return data[_at(data, rng) :]


def _block(data, rng):
    size = int(rng.integers(1, max(2, min(len(data), 1 + len(data) // 4))))
    return _at(data, rng, size), size


def _zeroed(data, rng):
    at, size = _block(data, rng)
    data[at : at + size] = bytes(len(data[at : at + size]))
    return data


def _last_block_zeroed(data, rng):
    size = min(len(data), int(rng.choice([16, 64, 512, 4096])))
    data[len(data) - size :] = bytes(size)
    return data


def _noise(data, rng):
    at, size = _block(data, rng)
    data[at : at + size] = rng.bytes(len(data[at : at + size]))
    return data


def _swapped(data, rng):
    size = max(1, min(len(data) // 2, int(rng.choice([1, 8, 64, 512]))))
    a, b = sorted((_at(data, rng, size), _at(data, rng, size)))
    if a + size <= b:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _inserted(data, rng):
    at = _at(data, rng)
    return data[:at] + rng.bytes(int(rng.choice([1, 2, 7, 64]))) + data[at:]


def _removed(data, rng):
    at, size = _block(data, rng)
    return data[:at] + data[at + size :]


def _repeated_block(data, rng):
    at, size = _block(data, rng)
    return data[: at + size] + data[at:]


def _doubled(data, rng):
    return data + data


def _more_behind(data, rng):
    return data + rng.bytes(int(rng.choice([1, 80, 5000])))


def _more_in_front(data, rng):
    return rng.bytes(int(rng.choice([1, 80]))) + data


def _emptied(data, rng):
    return b""


_BYTES = (
    _one_bit, _one_bit, _one_bit, _a_bit_of_the_head, _a_bit_of_the_tail, _many_bits, _cut_off, _cut_off_near_the_end,
    _head_gone, _zeroed, _last_block_zeroed, _noise, _swapped, _inserted, _removed, _repeated_block, _doubled,
    _more_behind, _more_in_front, _emptied,
)  # fmt: skip


def of_text(text, rng):
    """(words, text) of lines that are other ones."""
    lines = text.split("\n")
    at = int(rng.integers(len(lines)))
    line = lines[at]
    cut = int(rng.integers(len(line) + 1))
    strange = STRANGE[int(rng.integers(len(STRANGE)))]
    kinds = {
        "a line less": lines[:at] + lines[at + 1 :],
        "a line twice": lines[:at] + [line] + lines[at:],
        "an empty line": lines[:at] + [""] + lines[at:],
        "a line cut off": lines[:at] + [line[:cut]] + lines[at + 1 :],
        "something strange within a line": lines[:at] + [line[:cut] + strange + line[cut:]] + lines[at + 1 :],
        "a strange line": lines[:at] + [strange] + lines[at + 1 :],
        "a quotation mark": lines[:at] + [line[:cut] + '"' + line[cut:]] + lines[at + 1 :],
        "a zero byte": lines[:at] + [line[:cut] + "\0" + line[cut:]] + lines[at + 1 :],
        "separators": lines[:at] + [line + ",;\t| " * 3] + lines[at + 1 :],
        "numbers too large": lines[:at] + [line.replace("1", "9" * 400)] + lines[at + 1 :],
        "one line": [" ".join(lines)],
        "the first line alone": lines[:1],
    }
    words = list(kinds)[int(rng.integers(len(kinds)))]
    return words, "\n".join(kinds[words])
