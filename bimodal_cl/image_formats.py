"""The image formats that are read: plain raster formats that Pillow decodes by itself, and their files' extensions.

Left out of Pillow's list are formats that start other programs (EPS), that are drawings or containers for which Pillow
has no decoder (WMF, GRIB, HDF5, ...), and those of video.
"""

from __future__ import annotations

# By Pillow's name; the first extension of a format is the usual one. A row table stores an extension by its place in
# IMAGE_EXTENSIONS, so new ones go to the end.
EXTENSIONS_OF_FORMAT = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga",),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "DIB": (".dib",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "MPO": (".mpo",),
    "ICNS": (".icns",),
    "PSD": (".psd",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
}
IMAGE_FORMATS = tuple(EXTENSIONS_OF_FORMAT)
_FIRST = (".jpg", ".jpeg", ".png", ".webp")
IMAGE_EXTENSIONS = (
    *_FIRST,
    *(each for extensions in EXTENSIONS_OF_FORMAT.values() for each in extensions if each not in _FIRST),
)
