"""Which media are let in: containers, codecs, image names, refused addresses, playlists. Decodes nothing."""

from __future__ import annotations

import re

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}
)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Containers by FFmpeg's demuxer names. Absent on purpose: everything that can name another file or address
# (hls, dash, concat, sdp, image2, lavfi, imf, ...). The audio containers are there so that a song is told
# apart from noise ("no picture track" instead of "not a video").
CONTAINERS = _names(
    "mov matroska avi mpegts mpeg mpegvideo flv asf ogg gif apng h264 hevc m4v mjpeg ivf obu yuv4mpegpipe "
    "mxf dv nut rm mp3 wav flac aac"
)

# Concatenated pictures, on standard input or in a file (motion JPEG looks like that).
PIPES = _names("jpeg_pipe png_pipe bmp_pipe webp_pipe ppm_pipe pgm_pipe tiff_pipe mpjpeg")

VIDEO_CODECS = _names(
    "h264 hevc vp8 vp9 libvpx libvpx-vp9 av1 libdav1d mpeg1video mpeg2video mpegvideo mpeg4 msmpeg4 "
    "msmpeg4v1 msmpeg4v2 h263 h263i h263p flv wmv1 wmv2 wmv3 vc1 mjpeg mjpegb png apng gif bmp tiff webp "
    "ppm pgm rawvideo wrapped_avframe prores dnxhd cfhd ffv1 huffyuv ffvhuff utvideo magicyuv qtrle theora "
    "dvvideo cinepak svq1 svq3 rv10 rv20 rv30 rv40 msvideo1 msrle rpza v210 vvc"
)

_ADDRESS = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:|^(subfile|concatf?|crypto|async|cache)[,:]", re.ASCII)
_PATTERN = re.compile(r"%0?\d*d")
_PLAYLISTS = (
    (re.compile(rb"^(\xef\xbb\xbf)?\s*#EXTM3U"), "an M3U playlist"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*ffconcat\b"), "an ffconcat list"),
    (re.compile(rb"^\s*v=0\s*\r?\n\s*o="), "an SDP description"),
    (re.compile(rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(MPD|Smooth\w+|asx|smil)\b"), "a manifest"),
    (re.compile(rb"^\s*\[(playlist|Reference)\]", re.I), "a playlist"),
    (re.compile(rb"^RTSPtext"), "a redirection"),
    (re.compile(rb"^\s*file\s+'?[^\n]*\n", re.I), "a list of files"),
)  # fmt: skip


def is_address(text: str) -> bool:
    """Whether the text reads as a URL or an FFmpeg protocol and not as a path (``C:`` is a drive)."""
    return _ADDRESS.match(text) is not None


def is_pattern(text: str) -> bool:
    """Whether the text is a printf-like image pattern (``img_%04d.jpg``)."""
    return _PATTERN.search(text) is not None


def playlist_kind(head: bytes) -> str | None:
    """What kind of playlist a file begins like, ``None`` if none. Such files name other files."""
    for expression, kind in _PLAYLISTS:
        if expression.match(head):
            return kind
    return None


def shown(name: object) -> str:
    """A file name as it may be printed: control characters and undecodable bytes escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(name)
    )
