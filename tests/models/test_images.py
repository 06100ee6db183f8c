"""Images from files against the arrays that were written, and what a person sees of them."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from config import UserError
from models import images

GREY = np.linspace(0, 255, 48).round().astype(np.uint8).reshape(6, 8)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
# What an image that is stored upright must be turned into so that a viewer, which turns it back, shows it upright.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def saved(folder, array, name="a.png", mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(np.ascontiguousarray(array))
    (image if mode is None else image.convert(mode)).save(folder / name, **options)
    return folder / name


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.TIF", "a.tiff", "a.ppm", "ä ö.webp"])
def test_bytes_are_read_as_they_were_written(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    np.testing.assert_array_equal(images.read(saved(tmp_path, COLOURS, name, **options)), COLOURS)
    grey = images.read(saved(tmp_path, GREY, "g.png"))
    np.testing.assert_array_equal(grey, np.repeat(GREY[:, :, None], 3, 2))


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_images_are_turned_as_their_exif_says(tmp_path, number, name):
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, STORED[number](COLOURS), name, exif=oriented(number), **options)
    np.testing.assert_array_equal(images.read(path), COLOURS)
    wide = saved(tmp_path, STORED[number](GREY.astype(np.uint16) * 257), "w.png", exif=oriented(number))
    np.testing.assert_array_equal(images.read(wide)[:, :, 0], GREY)


def test_damaged_exif_takes_nothing_away(tmp_path):
    np.testing.assert_array_equal(images.read(saved(tmp_path, COLOURS, exif=b"Exif\0\0MM\0*nothing")), COLOURS)


@pytest.mark.parametrize(
    ("name", "values", "white"),
    [
        ("a.png", GREY.astype(np.uint16) * 257, None),
        ("a.png", GREY.astype(np.uint16) * 16, 4095),
        ("a.png", GREY.astype(np.uint16), 255),
        ("a.tif", GREY.astype(np.uint16) * 257, None),
        ("a.tif", (GREY.astype(np.uint16) * 257).astype(">u2"), None),
        ("a.tif", GREY.astype(np.int32) * 257, None),
        ("a.tif", GREY.astype(np.int32) * 65793, 16777215),
        ("a.tif", (GREY / 255).astype(np.float32), None),
        ("a.tif", GREY.astype(np.float32), 255),
    ],
)
def test_more_than_8_bits_are_scaled_and_not_cut_off(tmp_path, name, values, white):
    path = saved(tmp_path, values, name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = images.white_of([path])
    assert [str(w.message).endswith(f": {white} is read as white") for w in said] == [True] * (white is not None)
    assert abs(images.read(path, found).astype(int) - GREY[:, :, None]).max() <= 1
    pixels, size = images.scaled(path, 8, found)
    assert size == (8, 6) and pixels.dtype == np.float32 and pixels.max() <= 1 and len(np.unique(pixels)) > 40


def test_images_that_are_read_together_have_one_white(tmp_path):
    bright = saved(tmp_path, np.full((4, 4), 4000, np.uint16), "a.png")
    dark = saved(tmp_path, np.full((4, 4), 200, np.uint16), "b.png")
    with pytest.warns(UserWarning, match="the images of more than 8 bits reach 4000: 4095 is read as white"):
        white = images.white_of([dark, bright])
    assert images.read(bright, white)[0, 0, 0] == 249 and images.read(dark, white)[0, 0, 0] == 12
    assert images.white_of([saved(tmp_path, GREY, "c.png")]) == {}


@pytest.mark.parametrize(
    ("values", "said"), [([-1.0, 2.0], "from -1 to 2"), ([0, np.nan], "from nan to nan"), ([0, 3.0], "reach 3: give 0")]
)
def test_floats_that_are_no_brightness_are_refused(tmp_path, values, said):
    path = saved(tmp_path, np.array([values], np.float32), "a.tif")
    with pytest.raises(UserError, match=said):
        images.white_of([path])


def test_zero_is_white_in_a_tiff_that_says_so(tmp_path):
    path = saved(tmp_path, 65535 - GREY.astype(np.uint16) * 257, "a.tif", tiffinfo={262: 0})
    if Image.open(path).tag_v2[262] != 0:  # PIL writes its own
        data = bytearray(path.read_bytes())
        at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
        data[at : at + 2] = b"\0\0"
        path.write_bytes(data)
    np.testing.assert_array_equal(images.read(path)[:, :, 0], GREY)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_what_is_transparent_shows_white_and_not_the_hidden_colour(tmp_path, name):
    alpha = np.array([0, 51, 102, 153, 204, 255, 0, 255], np.uint8) * np.ones((6, 1), np.uint8)
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    path = saved(tmp_path, np.dstack([COLOURS, alpha]), name, **options)
    share = alpha[:, :, None] / 255
    assert abs(images.read(path) - (COLOURS * share + 255 * (1 - share))).max() <= 1
    assert (images.read(path)[:, 0] == 255).all() and (images.read(path)[:, 5] == COLOURS[:, 5]).all()


def test_grey_palettes_and_keys_of_transparency(tmp_path):
    both = saved(tmp_path, Image.merge("LA", [Image.fromarray(GREY), Image.fromarray((GREY > 99) * np.uint8(255))]))
    wanted = np.where(GREY > 99, GREY, 255)
    np.testing.assert_array_equal(images.read(both)[:, :, 1], wanted)
    hidden = np.where(GREY == GREY[2, 3], 255, GREY)
    for mode, key in (("L", int(GREY[2, 3])), ("RGB", (int(GREY[2, 3]),) * 3)):
        np.testing.assert_array_equal(images.read(saved(tmp_path, GREY, mode=mode, transparency=key))[:, :, 2], hidden)
    wide = saved(tmp_path, GREY.astype(np.uint16) * 257, transparency=int(GREY[2, 3]) * 257)
    np.testing.assert_array_equal(images.read(wide)[:, :, 2], hidden)
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "L")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    wanted = [[[255, 255, 255], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]]
    for name in ("p.png", "p.gif"):
        assert images.read(saved(tmp_path, palette, name, transparency=0)).tolist() == wanted


def test_colours_of_16_bits_with_a_key(tmp_path):
    """Written by hand: PIL writes none. The upper 8 bits are what is seen."""
    values = COLOURS.astype(">u2") * 257
    path = tmp_path / "a.png"

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0))
    for key in (b"", chunk(b"tRNS", values[1, 2].tobytes())):
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
        wanted = COLOURS.copy()
        wanted[1, 2] = 255 if key else wanted[1, 2]
        np.testing.assert_array_equal(images.read(path), wanted)


def test_other_colours(tmp_path):
    flat = np.full((16, 16, 3), (200, 80, 30), np.uint8)
    for name, mode in (("a.jpg", "CMYK"), ("a.JPEG", "RGB"), ("a.tif", "CMYK"), ("b.tif", "YCbCr")):
        found = images.read(saved(tmp_path, flat, name, mode=mode)).astype(int)
        assert abs(found - flat).max() <= 4, name
    lab = Image.fromarray(np.full((4, 4, 3), (128, 0, 0), np.uint8), "LAB")  # L* 50: a grey of 119
    assert abs(images.read(saved(tmp_path, lab, "lab.tif")).astype(int) - 119).max() <= 1
    bits = GREY > 99
    np.testing.assert_array_equal(images.read(saved(tmp_path, bits))[:, :, 0], np.where(bits, 255, 0))


def test_profiles_of_colour(tmp_path):
    """That of the screen changes nothing; in one with red and blue exchanged, red is seen as blue."""
    screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(images.read(saved(tmp_path, COLOURS, icc_profile=screen)), COLOURS)
    turned = screen.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    found = images.read(saved(tmp_path, np.full((4, 4, 3), (200, 60, 30), np.uint8), icc_profile=turned))
    assert abs(found.astype(int) - (30, 60, 200)).max() <= 3
    np.testing.assert_array_equal(images.read(saved(tmp_path, COLOURS, icc_profile=b"nothing")), COLOURS)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tif", "a.png"])
def test_the_first_frame_is_read(tmp_path, name):
    first, second = (Image.new("RGB", (5, 4), (value, value, value)) for value in (255, 0))
    first.save(tmp_path / name, save_all=True, append_images=[second, second])
    assert abs(images.read(tmp_path / name).astype(int) - 255).max() <= 2


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: p.write_bytes(b""), "it is empty"),
        (lambda p: p.write_text("no"), "no format that is read"),
        (lambda p: p.symlink_to("nowhere.png"), "a link to nothing"),
        (lambda p: saved(p.parent, COLOURS, "b.ico").rename(p), "no format that is read"),
        (lambda p: p.write_bytes(_png()[:-60]), "cannot read the image"),
    ],
)
def test_files_that_are_no_images_are_named(tmp_path, write, said):
    path = tmp_path / "a.png"
    write(path)
    with pytest.raises(UserError, match=said) as raised:
        images.read(path)
    assert "a.png" in str(raised.value) and "replace or remove it" in str(raised.value)
    assert "\n" not in str(raised.value)


def _png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_large_images_are_refused_by_their_header(tmp_path, side):
    data = bytearray(_png())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a.png has more than 89,478,485 pixels: scale it down or remove it"):
        images.read(tmp_path / "a.png")


def test_folders_are_listed_without_what_the_system_put_there(tmp_path):
    for name in (".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_text("no")
    saved(tmp_path, COLOURS, "b.PNG"), saved(tmp_path, COLOURS, "a.Jpeg", format="JPEG")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.PNG")
    assert [path.name for path in images.listed(tmp_path)] == ["a.Jpeg", "b.PNG", "c.png"]
    saved(tmp_path, COLOURS, "d.png").rename(tmp_path / "d.HEIC")
    with pytest.raises(UserError, match="d.HEIC is of no format that is read .*: convert or remove it"):
        images.listed(tmp_path)
    (tmp_path / "d.HEIC").unlink()
    (tmp_path / "more").mkdir()
    saved(tmp_path / "more", COLOURS)
    with pytest.raises(UserError, match="more is a folder of images in a class folder: move them up"):
        images.listed(tmp_path)


def test_folders_in_capitals(tmp_path):
    (tmp_path / "Train").mkdir()
    assert images.subfolder(tmp_path, "train").name == "Train" and images.subfolder(tmp_path, "test") is None
    if not (tmp_path / "train").exists():  # where case tells files apart
        (tmp_path / "train").mkdir()
        with pytest.raises(UserError, match="holds the folders Train and train: keep one of them"):
            images.subfolder(tmp_path, "train")
    saved(tmp_path, COLOURS)
    with pytest.raises(UserError, match=r"a.png lies in no class folder: move it to .*/<class>/"):
        images.class_folders(tmp_path)
