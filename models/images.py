"""Images from files, as a person sees them. Whatever reads a picture from a file reads it here.

Turned as their EXIF says, in the colours of their profile, the first of several frames, transparency over white. Values
of more than 8 bits are scaled by what is white in all the images that are read together (`white_of`), not cut off at
255. The formats are those of a list, whatever the spelling of the suffix.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from config import UserError, shown

FORMATS = "PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"
SUFFIXES = set(".png .jpg .jpeg .jpe .jfif .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm".split())
UNREAD = set(
    ".heic .heif .avif .jxl .jp2 .j2k .psd .svg .eps .pdf .dcm .ico .tga .exr .hdr .pfm .dng .cr2 .nef".split()
)
MOST = 89_478_485  # pixels; PIL warns from here on
LEVELS = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 31))  # white, of whole numbers
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90".split()
TURNS = {orientation: Image.Transpose[name] for orientation, name in enumerate(_TURNS, 2)}
ORIENTATION, PHOTOMETRIC = 0x0112, 262  # tags of EXIF and TIFF
SAME = 3  # of 255: a profile that changes no more is that of the screen


def hidden(path):
    """Whether a file or folder is the system's, not the user's, such as .DS_Store, ._a.png and __MACOSX."""
    return path.name.startswith((".", "__MACOSX", "@eaDir"))


def subfolder(folder, *names):
    """The folder below `folder` that has one of these names in any case, None for none. Raises UserError for two."""
    wanted = {name.casefold() for name in names}
    there = sorted(p for p in folder.iterdir() if p.name.casefold() in wanted and p.is_dir()) if folder.is_dir() else []
    if len(there) > 1:
        raise UserError(f"{shown(folder)} holds the folders {there[0].name} and {there[1].name}: keep one of them")
    return there[0] if there else None


def class_folders(folder):
    """The folders of a part, a class each, by name. Raises UserError where images lie beside them."""
    below = sorted(path for path in folder.iterdir() if not hidden(path))
    beside = next((path for path in below if path.suffix.lower() in SUFFIXES and not path.is_dir()), None)
    if beside is not None:
        raise UserError(f"{shown(beside)} lies in no class folder: move it to {shown(folder)}/<class>/")
    return [path for path in below if path.is_dir()]


def listed(folder):
    """The images of a folder, by name. Raises UserError where there are none, or some that cannot be read."""
    below = sorted(path for path in folder.iterdir() if not hidden(path))
    for path in below:
        if path.suffix.lower() in UNREAD:
            raise UserError(f"{shown(path)} is of no format that is read ({_known()}): convert or remove it")
        if path.is_dir() and any(p.suffix.lower() in SUFFIXES and not hidden(p) for p in path.rglob("*")):
            raise UserError(f"{shown(path)} is a folder of images in a class folder: move them up, or remove it")
    found = [path for path in below if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    if not found:
        raise UserError(f"{shown(folder)} holds no images ({_known()}): put the class's images there, or remove it")
    return found


def _known():
    return ", ".join(sorted(SUFFIXES))


def read(path, white=None):
    """An image (H,W,3) in 0 ... 255, uint8. white: of `white_of`."""
    seen = _read(path, lambda image: _seen(image, white or {}, 255))
    return np.asarray(seen if seen.mode == "RGB" else _bytes(seen).convert("RGB"))


def scaled(path, side, white=None):
    """An image (side,side,3) in 0 ... 1, float32, by bilinear interpolation, and the size (W, H) that it had."""
    seen = _read(path, lambda image: _seen(image, white or {}, 255))
    pixels = np.asarray(seen.resize((side, side), Image.Resampling.BILINEAR), np.float32) / 255
    return np.ascontiguousarray(np.broadcast_to(pixels.reshape(side, side, -1), (side, side, 3))), seen.size


def read_mask(path, white=None):
    """A mask: the pixels (H,W) brighter than half of white, and the brightest value, of 255.

    What is transparent is black. Raises UserError for colours, of which nobody can say whether they are white.
    """
    seen = _read(path, lambda image: _seen(image, white or {}, 0))
    if seen.mode == "RGB":
        pixels = np.asarray(seen)
        if ((pixels.max(2) > 191) & (pixels.min(2) < 64)).any():
            raise UserError(f"the mask {shown(path)} has colours: give white where nothing may matter, else black")
        seen = seen.convert("L")
    values = np.asarray(seen)
    return values > 127.5, int(values.max())


def covered(mask, side):
    """Which pixels (side,side) of the scaled image any pixel of a mask (H,W) has a part in."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) > 1e-12


def white_of(paths):
    """What is white in these images, {"I": whole numbers of more than 8 bits, "F": floats}, for those that there are.

    The least of 255, 1023, 4095, ... that none of them exceeds, of floats 1 too: one for all of them, so that they stay
    comparable. Warns where it is not what the format says. Raises UserError for values that are no brightness.
    """
    largest = {}
    for path in paths:
        kind, value = _read(path, _extreme, path) or (None, 0)
        if kind is not None:
            largest[kind] = max(value, largest.get(kind, 0))
    found = {kind: _level(kind, value) for kind, value in largest.items()}
    for kind, value in found.items():
        if value != (1 if kind == "F" else 65535):
            what = "of floats" if kind == "F" else "of more than 8 bits"
            warnings.warn(f"the images {what} reach {largest[kind]:g}: {value} is read as white", stacklevel=2)
    return found


def _level(kind, value):
    if kind == "F" and 1 < value < 16:
        raise UserError(f"the images of floats reach {value:g}: give 0 to 1, or 0 to 255")
    return next(level for level in ((1, *LEVELS) if kind == "F" else LEVELS) if value <= level)


def _kind(image):
    """Of an image of more than 8 bits "I" or "F", else None."""
    return image.mode[0] if image.mode == "F" or image.mode[0] == "I" else None


def _extreme(image, path=None):
    """(kind, largest value) of an image of more than 8 bits. Reads the pixels of no other."""
    kind = _kind(image)
    if kind is None:
        return None
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > LEVELS[-1]:
        raise UserError(
            f"{shown(path or image.filename)} has values from {low:g} to {high:g}: give 0 to 1, or 0 to 255"
        )
    return kind, float(high)


def _read(path, work, *more):
    """work(image, ...) of an image that is opened. Raises UserError where it cannot be read."""
    path = Path(path)
    try:
        if not path.stat().st_size:
            raise OSError("it is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the sizes and notes that are looked at here
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST:
                    raise Image.DecompressionBombError
                return work(image, *more)
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise UserError(f"{shown(path)} has more than {MOST:,} pixels: scale it down or remove it") from None
    except FileNotFoundError:
        why = "a link to nothing" if path.is_symlink() else "not there"
        raise UserError(f"cannot read the image {shown(path)} (it is {why}): replace or remove it") from None
    except Exception as error:  # PIL raises many kinds for damaged files
        why = "it is of no format that is read" if isinstance(error, Image.UnidentifiedImageError) else error
        raise UserError(f"cannot read the image {shown(path)} ({why}): replace or remove it") from error


def _seen(image, white, ground):
    """An opened image upright: RGB, or F in 0 ... 255 where it has more than 8 bits. ground: what is behind it."""
    image.load()
    if _kind(image) is not None:
        return _upright(image, _narrowed(image, white, ground))
    alpha = None
    if image.has_transparency_data:
        key = image.info.get("transparency")
        if isinstance(key, tuple) and max(key) > 255:  # of 16 bits for each colour, of which PIL gives the upper 8
            image.info["transparency"] = tuple(value >> 8 for value in key)
        alpha = image.convert("RGBA").getchannel("A")
    seen = _in_srgb(image if image.mode in ("L", "CMYK", "LAB") else image.convert("RGB"), image.info)
    if alpha is not None:
        seen = Image.composite(seen, Image.new("RGB", seen.size, (ground,) * 3), alpha)
    return _upright(image, seen)


def _upright(image, seen):
    """`seen` turned as the file of `image` says; a TIFF is turned when it is loaded."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # damaged EXIF data take nothing away from the pixels
        turn = None
    return seen if turn is None else seen.transpose(turn)


def _narrowed(image, white, ground):
    """An image of more than 8 bits as F in 0 ... 255."""
    kind, largest = _extreme(image)
    white = white.get(kind) or _level(kind, largest)
    values = np.asarray(image).astype(np.float32) * np.float32(255 / white)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0 and kind == "I":  # TIFF: 0 is white
        values = 255 - values
    key = image.info.get("transparency")
    if isinstance(key, int):
        values[np.asarray(image) == key] = ground
    return Image.fromarray(values.clip(0, 255))


def _in_srgb(image, info):
    """An image in RGB as a screen shows it. A profile that cannot be read is left out."""
    screen, profile = ImageCms.createProfile("sRGB"), info.get("icc_profile")
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), screen, outputMode="RGB")
    if not profile:
        return image.convert("RGB")
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(own, screen, image.mode, "RGB")
        if image.mode == "RGB":
            steps = np.arange(0, 256, 15, dtype=np.uint8)
            probe = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3)
            after = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform))
            if abs(after.astype(int) - probe).max() <= SAME:
                return image
        return ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image.convert("RGB")


def _bytes(image):
    return Image.fromarray(np.rint(np.asarray(image)).astype(np.uint8))
