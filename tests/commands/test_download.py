"""Data sets from a local stand-in of their hosts: ranges, breaks, wrong digests, refusals, no network, kills."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import composed
from PIL import Image

from skinlesion.commands.download import run
from skinlesion.config.data import DownloadConfig
from skinlesion.data import download
from skinlesion.errors import ConfigError, DataError
from skinlesion.files import config_dir, disk_faults


@dataclass
class Host:
    """What the stand-in serves, and how it misbehaves."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    knows_ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next answers break
    statuses: list[int] = field(default_factory=list)  # of the next answers
    ranges: list[str | None] = field(default_factory=list)  # asked for
    content_type: str = "application/octet-stream"


@pytest.fixture
def host() -> Iterator[Host]:
    stand_in = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content, asked = stand_in.files.get(self.path), self.headers["Range"]
            stand_in.ranges.append(asked)
            status = stand_in.statuses.pop(0) if stand_in.statuses else 200
            if content is None or status != 200:
                self.send_error(404 if content is None else status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and stand_in.knows_ranges else 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Type", stand_in.content_type)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            cut = stand_in.cuts.pop(0) if stand_in.cuts else len(content)
            self.wfile.write(content[start : start + cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stand_in
    server.shutdown()
    thread.join()
    server.server_close()


def jpeg(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, 150, 130)).save(buffer, "JPEG")
    return buffer.getvalue()


def archive(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return buffer.getvalue()


TABLE = b"lesion_id,image_id,dx,dx_type,age,sex,localization\n" + b"".join(
    f"HAM_{n},ISIC_{n},nv,histo,50,male,back\n".encode() for n in range(1, 5)
)
PARTS = [  # flat, and with a folder around everything
    archive({"ISIC_1.jpg": jpeg(1), "ISIC_2.jpg": jpeg(2), "__MACOSX/._ISIC_1.jpg": b"x"}),
    archive({"part/": b"", "part/ISIC_3.jpg": jpeg(3), "part/ISIC_4.jpg": jpeg(4)}),
]


def config(host: Host, root: Path, *overrides: str) -> DownloadConfig:
    """HAM10000's sources, with addresses, sizes and digests of the stand-in's files."""
    host.files |= {"/table?format=original": TABLE, "/1": PARTS[0], "/2": PARTS[1]} if not host.files else {}
    words = [f"data.root={root}", "accept_licence=true", "wait=0", "timeout=5", "dataset=ham10000"]
    for name, path in (("table", "/table?format=original"), ("part_1", "/1"), ("part_2", "/2")):
        content, key = host.files[path], f"dataset.files.{name}"
        words += [f"{key}.url='{host.address}{path}'", f"{key}.bytes={len(content)}"]
        words += [f"{key}.md5={hashlib.md5(content).hexdigest()}"]
    words += ["dataset.files.part_1.images=2", "dataset.files.part_2.images=2"]
    return composed("download", DownloadConfig, *words, *overrides)


def test_a_data_set_lies_where_the_reader_expects_it(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from skinlesion.data.readers import read_ham10000

    run(config(host, tmp_path / "data"))
    assert "CC BY-NC 4.0" in capsys.readouterr().out
    found = read_ham10000(
        tmp_path / "data",
        table="HAM10000_metadata",
        images=["HAM10000_images_part_1", "HAM10000_images_part_2"],
        missing_images="error",
        extra_images="error",
    )
    assert [Path(path).read_bytes() for path in found["path"]] == [jpeg(shade) for shade in (1, 2, 3, 4)]
    assert sorted(os.listdir(tmp_path / "data")) == [
        *("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_metadata.csv"),
    ]
    host.ranges.clear()
    run(config(host, tmp_path / "data"))
    assert host.ranges == [], "what is there is not fetched again"


def test_the_licence_is_shown_before_anything_is_fetched(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="accept_licence=true"):
        run(config(host, tmp_path, "accept_licence=false"))
    assert "licence CC BY-NC 4.0, https://doi.org/10.7910/DVN/DBW86T" in capsys.readouterr().out
    assert host.ranges == []


def test_a_broken_connection_is_gone_on_with(host: Host, tmp_path: Path) -> None:
    host.cuts = [40, 1000, 1, 0, 60]
    run(config(host, tmp_path))
    assert (tmp_path / "HAM10000_metadata.csv").read_bytes() == TABLE
    assert host.ranges[:2] == [None, "bytes=40-"]
    assert host.cuts == [], "every break came about"


def test_a_killed_download_goes_on_where_it_stopped(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path)
    (tmp_path / "HAM10000_metadata.csv.part").write_bytes(TABLE[:50])
    run(whole)
    assert host.ranges[0] == "bytes=50-"
    assert (tmp_path / "HAM10000_metadata.csv").read_bytes() == TABLE


def test_a_host_without_ranges_begins_anew(host: Host, tmp_path: Path) -> None:
    host.knows_ranges = False
    whole = config(host, tmp_path)
    (tmp_path / "HAM10000_metadata.csv.part").write_bytes(b"other")
    run(whole)
    assert (tmp_path / "HAM10000_metadata.csv").read_bytes() == TABLE


def test_a_part_that_is_too_long_begins_anew(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path)
    (tmp_path / "HAM10000_metadata.csv.part").write_bytes(TABLE + b"more")
    run(whole)
    assert host.ranges[:2] == [f"bytes={len(TABLE) + 4}-", None]
    assert (tmp_path / "HAM10000_metadata.csv").read_bytes() == TABLE


def test_a_wrong_digest_is_named_and_nothing_stays(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path, f"dataset.files.table.md5={'0' * 32}")
    wrong = hashlib.md5(TABLE).hexdigest()
    with pytest.raises(DataError, match=rf"table.*its MD5 is {wrong}, expected 0{{32}}; what came is deleted"):
        run(whole)
    assert os.listdir(tmp_path) == []


def test_a_sha256_is_checked_and_an_unknown_digest_is_said(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = hashlib.sha256(PARTS[0]).hexdigest()
    keys = [f"dataset.files.part_1.{key}" for key in ("md5=null", f"sha256={right}")]
    run(config(host, tmp_path / "a", *keys, "dataset.files.table.md5=null"))
    assert "HAM10000_metadata.csv: not checked, since its digest is not known" in caplog.text
    assert "part_1.zip: not checked" not in caplog.text
    with pytest.raises(DataError, match="its SHA256 is"):
        run(config(host, tmp_path / "b", "dataset.files.part_1.md5=null", f"dataset.files.part_1.sha256={'1' * 64}"))


def test_a_file_that_is_gone_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path)
    del host.files["/table?format=original"]
    with pytest.raises(DataError) as caught:
        run(whole)
    said = str(caught.value)
    assert "the host answers 404 (Not Found)" in said
    assert "by hand: download HAM10000_metadata.csv, HAM10000_images_part_1.zip, HAM10000_images_part_2.zip" in said
    assert "https://doi.org/10.7910/DVN/DBW86T" in said
    assert len(host.ranges) == 1


def test_a_web_page_is_not_taken_for_the_file(host: Host, tmp_path: Path) -> None:
    """As a network that wants a log-in sends it, where no digest would tell."""
    whole = config(host, tmp_path, "dataset.files.table.md5=null", "dataset.files.table.bytes=null")
    host.content_type = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="the host sends a web page, not the file; by hand: download"):
        run(whole)
    assert os.listdir(tmp_path) == []


def test_a_part_that_is_whole_is_not_fetched_again(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path, "dataset.files.table.bytes=null")
    (tmp_path / "HAM10000_metadata.csv.part").write_bytes(TABLE)
    run(whole)
    assert host.ranges[:2] == [f"bytes={len(TABLE)}-", None], "the second one is that of the next file"
    assert (tmp_path / "HAM10000_metadata.csv").read_bytes() == TABLE


def test_an_archive_with_too_few_images_is_refused_when_it_comes(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="part_2: holds 2 of 3 images"):
        run(config(host, tmp_path, "dataset.files.part_2.images=3"))


def test_a_busy_host_is_asked_again(host: Host, tmp_path: Path) -> None:
    host.statuses = [503, 503]
    run(config(host, tmp_path))
    assert (tmp_path / "HAM10000_metadata.csv").exists()
    host.statuses = [503] * 4
    with pytest.raises(DataError, match="answers 503"):
        run(config(host, tmp_path / "other", "retries=3"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no.such.host.invalid"])
def test_without_a_network_the_way_by_hand_is_named(host: Host, tmp_path: Path, address: str) -> None:
    with pytest.raises(
        DataError, match=r"(127\.0\.0\.1:9|no\.such\.host\.invalid): cannot be reached .*by hand: download"
    ):
        run(config(host, tmp_path, f"dataset.files.table.url={address}/x", "retries=1"))


def test_archives_that_were_put_there_by_hand_are_checked_unpacked_and_kept(host: Host, tmp_path: Path) -> None:
    whole = config(host, tmp_path)
    (tmp_path / "HAM10000_metadata.csv").write_bytes(TABLE)
    for name, content in zip(("part_1", "part_2"), PARTS, strict=True):
        (tmp_path / f"HAM10000_images_{name}.zip").write_bytes(content)
    run(whole)
    assert host.ranges == []
    assert (tmp_path / "HAM10000_images_part_2" / "ISIC_4.jpg").read_bytes() == jpeg(4)
    assert (tmp_path / "HAM10000_images_part_2.zip").exists()
    (tmp_path / "HAM10000_images_part_1" / "ISIC_1.jpg").unlink()
    with pytest.raises(DataError, match="part_1: holds 1 of 2 images; move it away"):
        run(whole)


def test_a_damaged_publishedand_one_that_leaves_its_folder(tmp_path: Path) -> None:
    content = bytearray(PARTS[0])
    content[45] ^= 255  # in the first image
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: cannot be unpacked"):
        download.unpack(tmp_path / "a.zip", tmp_path / "a")
    (tmp_path / "b.zip").write_bytes(archive({"../outside.jpg": jpeg(1), "x/../../y.jpg": jpeg(1)}))
    with pytest.raises(DataError, match=r"b\.zip: holds .*outside the folder"):
        download.unpack(tmp_path / "b.zip", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a.zip", "b.zip"]


def test_a_killed_unpacking_leaves_no_half_folder(host: Host, tmp_path: Path) -> None:
    """The process ends in the middle, as by SIGKILL; the next run begins anew."""
    (tmp_path / "a.zip").write_bytes(PARTS[0])
    code = (
        "import os, shutil; from pathlib import Path; from skinlesion.data import download\n"
        "shutil.copyfileobj = lambda *_: os._exit(9)\n"
        f"download.unpack(Path({str(tmp_path / 'a.zip')!r}), Path({str(tmp_path / 'a')!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not (tmp_path / "a").exists()
    assert len(os.listdir(tmp_path)) == 2, "the half of it"
    download.unpack(tmp_path / "a.zip", tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "a.zip"]
    assert sorted(os.listdir(tmp_path / "a")) == ["ISIC_1.jpg", "ISIC_2.jpg"]


def test_a_small_disk_is_found_out_before(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = config(host, tmp_path)
    needed = len(TABLE) + 2 * sum(map(len, PARTS))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed - 1})())
    with pytest.raises(DataError, match=r"^data\.root=.*: the files of HAM10000 need .*set data\.root elsewhere$"):
        run(whole)
    assert host.ranges == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed})())
    run(whole)


def test_archives_that_are_there_need_no_room_but_for_their_images(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(host, tmp_path)
    (tmp_path / "HAM10000_images_part_1.zip").write_bytes(PARTS[0])
    (tmp_path / "HAM10000_images_part_2.zip.part").write_bytes(PARTS[1][:100])
    needed = len(TABLE) + len(PARTS[0]) + 2 * len(PARTS[1]) - 100
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed - 1})())
    with pytest.raises(DataError, match="the files of HAM10000 need"):
        run(whole)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": needed})())
    run(whole)


@pytest.mark.parametrize(
    ("place", "said", "asked"),
    [
        ((download, "_chunks"), "metadata.csv.part: No space left on device; make room", 1),
        ((shutil, "copyfileobj"), "part_1: No space left on device", 2),
    ],
)
def test_a_disk_that_fills_up_is_named_and_is_not_taken_for_the_network(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[ModuleType, str], said: str, asked: int
) -> None:
    """The system's own error, as of write(2), while a file is received and while it is unpacked."""
    whole = config(host, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*place, full)
    with pytest.raises(DataError, match=said), disk_faults():
        run(whole)
    assert len(host.ranges) == asked, "no further try"


def test_a_collection_goes_through_isic_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages" / "isic_cli" / "cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (published := tmp_path / "archive").mkdir()
    script = (
        "import shutil, sys; from pathlib import Path; *words, root = sys.argv[1:]\n"
        f"shutil.copytree({str(published)!r}, root, dirs_exist_ok=True)\n"
        "(Path(root) / 'words.txt').write_text(' '.join(words)); sys.exit((Path(root) / 'broken').exists())"
    )
    (package / "__main__.py").write_text(script)
    words = ["dataset=isic", "dataset.collection=249", f"data.root={tmp_path / 'isic'}", "accept_licence=true"]
    whole = composed("download", DownloadConfig, *words)
    monkeypatch.setattr("skinlesion.commands.download.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'skinlesion\[isic\]'"):
        run(whole)
    monkeypatch.setattr("skinlesion.commands.download.find_spec", lambda _: True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    with pytest.raises(DataError, match=r"isic-cli ended without metadata\.csv"):
        run(whole)
    assert (tmp_path / "isic" / "words.txt").read_text() == "image download --collections 249"
    (published / "metadata.csv").write_text('isic_id,text\nISIC_1,"two\nlines"\nISIC_2,\n')
    (published / "ISIC_1.jpg").write_bytes(jpeg(1))
    with pytest.raises(DataError, match=r"holds 1 of 2 images of metadata\.csv; run this again"):
        run(whole)  # as where the archive refused one of them
    (published / "ISIC_2.JPG").write_bytes(jpeg(2))
    run(whole)
    (published / "broken").touch()
    with pytest.raises(DataError, match="isic-cli ended with status 1"):
        run(whole)


SOURCES = sorted((config_dir() / "dataset").glob("*.yaml"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_sources_are_whole(path: Path) -> None:
    """Digests have the right length, addresses are the hosts' own, and the licence is named."""
    source = yaml.safe_load(path.read_text())
    assert source["licence"]
    assert source["page"].startswith("https://")
    for file in source["files"].values():
        assert file["url"].startswith(
            (
                "https://dataverse.harvard.edu/api/access/datafile/",
                "https://isic-challenge-data.s3.amazonaws.com/",
                "https://isic-archive.s3.amazonaws.com/challenges/milk10k/",
                "https://data.mendeley.com/public-files/datasets/zr7vgbcyr2/",
                "https://zenodo.org/records/",
            )
        )
        for digest, length in ((file["md5"], 32), (file["sha256"], 64)):
            assert digest is None or (len(digest) == length and int(digest, 16) > 0)


@pytest.mark.real_data
@pytest.mark.skipif("SKINLESION_SHARED" not in os.environ, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_the_digest_of_ham10000s_table_is_that_of_the_real_one() -> None:
    table = Path(os.environ["SKINLESION_SHARED"]) / "ham10000" / "HAM10000_metadata"
    source = yaml.safe_load((config_dir() / "dataset" / "ham10000.yaml").read_text())["files"]["table"]
    assert (hashlib.md5(table.read_bytes()).hexdigest(), table.stat().st_size) == (source["md5"], source["bytes"])
