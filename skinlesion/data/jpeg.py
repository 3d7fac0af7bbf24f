"""Damage inside a JPEG that its decoder passes over: libjpeg fills what is missing with grey or noise, and only warns.

The markers of a file say where its coded pixels end. Of a file with one scan the decoder is given exactly these bytes:
if it then asks for more, some were lost or changed, and if it needs far fewer, too. Of a progressive file the scans
must complete each other. Both are as cheap as reading the file.
"""

import re
from io import BytesIO

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a byte of the coded pixels nor a restart
_END, _START_OF_SCAN, _PROGRESSIVE = 0xD9, 0xDA, 0xC2
_HUFFMAN = (0xC0, 0xC1)  # frames of one pass, each bit of which the pixels need
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_AFTER_SCAN = frozenset({0xC4, _END, _START_OF_SCAN, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
_AHEAD = bytes(16)  # the decoder looks a few bytes ahead of the pixels
_SURPLUS = 32  # bytes after the last pixel that some cameras write, or one part in as many
_ZEROS = bytes(512)  # no scan of a progressive file holds so many


class EndedJpeg(BytesIO):
    """The bytes of a JPEG up to the end of its coded pixels, for Pillow to decode.

    Raises:
        ValueError: Markers are missing, or scans incomplete.
    """

    def __init__(self, data: bytes) -> None:
        frame, scans, start, end = _walk(data)
        self._needed = 0  # a position that must be passed
        if len(scans) > 1 or frame not in _HUFFMAN:
            super().__init__(data)
            if not _is_complete(scans) or (frame == _PROGRESSIVE and _ZEROS in data[start:end]):
                raise ValueError("parts of the JPEG's pixels are missing")
        else:
            super().__init__(data[:end] + _AHEAD)
            self._needed = max(start, end - max(_SURPLUS, (end - start) // _SURPLUS))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, but not across the position that must be passed."""
        at = self.tell()
        if at < self._needed and (size is None or size < 0 or at + size > self._needed):
            size = self._needed - at
        return super().read(size)

    def has_surplus(self) -> bool:
        """Whether all pixels came from the bytes before the position that must be passed."""
        return 0 < self.tell() <= self._needed


def _walk(data: bytes) -> tuple[int, list[bytes], int, int]:
    """Find the kind of frame, the headers of its scans, and where the coded pixels begin and end."""
    scans: list[bytes] = []
    at, frame, first, end = 2, 0, 0, 0
    while found := _MARKER.search(data, at):
        at, code = found.end(), data[found.end() - 1]
        if scans and not end:
            end = found.start()
            if code not in _AFTER_SCAN:
                break
        if code == _END:
            if not scans:
                break
            return frame, scans, first, end
        length = int.from_bytes(data[at : at + 2], "big")
        if code in _FRAMES:
            frame = code
        at += length
        if code == _START_OF_SCAN:
            scans.append(data[at - length + 2 : at])
            first, end = first or at, 0
    raise ValueError("no end marker" if not found else "a marker amid its pixels")


def _is_complete(scans: list[bytes]) -> bool:
    """Whether every bit of a coefficient that one scan leaves out comes with a later one."""
    missing: dict[tuple[int, int], int] = {}
    for header in scans:
        components = header[1 : 1 + 2 * header[0] : 2]
        first, last, bits = header[-3:]
        missing |= {(each, k): bits & 15 for each in components for k in range(first, last + 1)}
    return not any(missing.values())
