"""The file formats that are read, by extension: captions, and the raster formats that Pillow decodes by itself.

Of Pillow's formats these are left out: EPS, which starts another program; drawings, videos and containers without a
decoder in Pillow (WMF, MPEG, IPTC, GRIB, BUFR, HDF5); FITS, whose measurements have no defined brightness; PCD, whose
extension now belongs to point clouds; and three formats without an extension (MCIDAS, SPIDER, XVTHUMB).
"""

from __future__ import annotations

# By Pillow's name, in the order in which the content is tried. TGA has no magic number, so it comes last. The first
# extension of a format is the usual one. A row table stores the place of an extension in IMAGE_EXTENSIONS, so new
# formats must be added at the end of _LATER.
_TGA = {"TGA": (".tga", ".icb", ".vda", ".vst")}
_LATER: dict[str, tuple[str, ...]] = {
    "BLP": (".blp",),
    "CUR": (".cur",),
    "DCX": (".dcx",),
    "FLI": (".fli", ".flc"),
    "FTEX": (".ftc", ".ftu"),
    "GBR": (".gbr",),
    "IM": (".im",),
    "MSP": (".msp",),
    "PIXAR": (".pxr",),
    "SUN": (".ras",),
}
EXTENSIONS_OF_FORMAT: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "DIB": (".dib",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "MPO": (".mpo",),
    "ICNS": (".icns",),
    "PSD": (".psd",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    **_LATER,
    **_TGA,
}
IMAGE_FORMATS = tuple(name for name in EXTENSIONS_OF_FORMAT if name != "MPO")  # which Pillow opens as JPEG
_FIRST = (".jpg", ".jpeg", ".png", ".webp")
_NUMBERED = [*(name for name in EXTENSIONS_OF_FORMAT if name not in (*_LATER, *_TGA)), *_TGA, *_LATER]
IMAGE_EXTENSIONS = (
    *_FIRST,
    *(each for name in _NUMBERED for each in EXTENSIONS_OF_FORMAT[name] if each not in _FIRST),
)

# Extensions of the caption of an image; if a sample has several, the first of these is read.
TEXT_EXTENSIONS = (".txt", ".caption", ".text")
TEXT_EXTENSION = TEXT_EXTENSIONS[0]  # of the shards that we write

# Magic numbers of other content that is found in place of images, to name it in messages.
_OTHER_CONTENT = {
    b"II*\0": "a TIFF that Pillow cannot read",
    b"MM\0*": "a TIFF that Pillow cannot read",
    b"\xff\xd8\xff": "a damaged JPEG",
    b"\x89PNG": "a damaged PNG",
    b"GIF8": "a damaged GIF",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!doctype html": "HTML",
    b"<html": "HTML",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def name_other_content(data: bytes) -> str:
    """Name the format of bytes that are not of ``IMAGE_FORMATS`` by their magic number; ``""`` if it is unknown."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        return "HEIC" if brand in _HEIF_BRANDS else "a damaged AVIF" if brand in _AVIF_BRANDS else "a video (MP4)"
    if data[:2] == b"\xff\x0a" or data[4:8] == b"JXL ":
        return "JPEG XL"
    begin = data[:64].lstrip().lower()
    return next((name for mark, name in _OTHER_CONTENT.items() if begin.startswith(mark.lower())), "")
