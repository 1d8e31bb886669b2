import shutil
import struct
import sys

import pytest

from local_proxy.intercept.elf import reads_answers_by_recvmsg


def program(path, *segments):
    """An ELF file of these segments: kind and content."""
    offset = 64 + 56 * len(segments)
    header = struct.pack("=16sHHIQQQIHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0, 64, 0, 0, 64, 56, len(segments)).ljust(
        64, b"\0"
    )
    table, content = b"", b""
    for kind, data in segments:
        table += struct.pack("=IIQQQQQQ", kind, 4, offset + len(content), 0, 0, len(data), len(data), 1)
        content += data
    path.write_bytes(header + table + content)
    return str(path)


@pytest.mark.parametrize(
    ("segments", "reads"),
    [
        ([(3, b"/lib/ld-musl-x86_64.so.1\0")], True),
        ([(3, b"/lib64/ld-linux-x86-64.so.2\0")], False),
        ([(4, b"\4\0\0\0\x10\0\0\0\3\0\0\0GNU\0")], True),
        ([(4, b"\4\0\0\0\x53\0\0\0\4\0\0\0Go\0\0build")], False),
        ([], True),
    ],
    ids=["musl", "glibc", "static", "Go", "static without notes"],
)
def test_by_library(tmp_path, segments, reads):
    path = program(tmp_path / "program", *segments)
    assert reads_answers_by_recvmsg(path) is reads
    script = tmp_path / "script"
    script.write_text(f"#! {path} -x\n")
    assert reads_answers_by_recvmsg(str(script)) is reads


def test_what_is_no_program(tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut").write_bytes(b"\x7fELF\2\1\1")
    for name in ("text", "cut", "missing"):
        assert not reads_answers_by_recvmsg(str(tmp_path / name))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has ELF programs")
def test_real_programs():
    assert not reads_answers_by_recvmsg(sys.executable)
    assert not reads_answers_by_recvmsg(shutil.which("env"))
