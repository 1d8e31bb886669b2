"""The private copies of a target's files, laid out as a kubelet lays out a volume.

A volume's files are in a folder of their own, `..data` leads to it, and each name in the volume leads through `..data`
(k8s.io/kubernetes/pkg/volume/util/atomic_writer.go). So all files of a volume change at once, and who watches `..data` sees it.
What is mounted by `subPath` is a plain file or folder and stays as it was, as in the pod.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hairpin.files import private_directory, replace_file
from local_proxy.target.paths import under
from local_proxy.target.volumes import File, Mount, within

if TYPE_CHECKING:
    from local_proxy.target.read import Found

_DATA, _NEW_DATA = "..data", "..data_tmp"


def write_copies(found: Found, root: Path, *, again: bool = False) -> None:
    """Write the copies; they are for their owner alone, and can be run if they can be in the pod.

    Args:
        found: what was read of the target.
        root: the folder that stands for the container's root.
        again: they have been written before.

    Raises:
        OSError: the folder can't be written.
    """
    for mount, files in _by_mount(found):
        if again and mount.below:
            continue
        place = under(root, mount.path)
        if mount.path in files:
            _private(root, place.parent)
            _write(place, files[mount.path])
            continue
        if not files and mount.below:  # what the subPath names is not there
            continue
        _private(root, place)
        inner = {str(PurePosixPath(path).relative_to(mount.path)): file for path, file in files.items()}
        if mount.below or _has_mount_in_a_folder(mount, inner, found.mounts):
            for name, file in inner.items():
                _private(root, (place / name).parent)
                _write(place / name, file)
        else:
            _swap(place, inner)


def copy_places(found: Found, root: Path) -> dict[str, Path]:
    """Copies that have been written, by the path of their mount."""
    places = {mount.path: under(root, mount.path) for mount in found.mounts}
    return {path: place for path, place in places.items() if place.exists()}


def _by_mount(found: Found) -> list[tuple[Mount, dict[str, File]]]:
    """Mounts, outer ones first, and the files that each shows, by path in the container."""
    files: dict[str, dict[str, File]] = {mount.path: {} for mount in found.mounts}
    for path, file in found.files.items():
        mounts = [mount for mount in files if within(path, mount)]
        if mounts:
            files[max(mounts, key=len)][path] = file
    return [(mount, files[mount.path]) for mount in found.mounts]


def _has_mount_in_a_folder(mount: Mount, files: Mapping[str, File], mounts: tuple[Mount, ...]) -> bool:
    """Whether another mount is in a folder of the volume's, which then can't be swapped."""
    folders = {name.partition("/")[0] for name in files}
    inner = [PurePosixPath(one.path) for one in mounts if one.path != mount.path and within(one.path, mount.path)]
    return any(path.relative_to(mount.path).parts[0] in folders for path in inner)


def _swap(folder: Path, files: Mapping[str, File]) -> None:
    data = folder / _DATA
    if data.exists() and _content(data) == {name: (file.data, _mode(file)) for name, file in files.items()}:
        return
    version = Path(tempfile.mkdtemp(prefix=time.strftime("..%Y_%m_%d_%H_%M_%S."), dir=folder))  # 0700
    for name, file in files.items():
        _private(version, (version / name).parent)
        _write(version / name, file)
    new = folder / _NEW_DATA
    new.unlink(missing_ok=True)
    new.symlink_to(version.name)
    new.replace(data)
    names = {name.partition("/")[0] for name in files}
    for entry in [*folder.iterdir()]:
        if entry.is_symlink():
            if entry.name != _DATA and entry.name not in names:
                entry.unlink()
        elif entry.name.startswith("..") and entry != version:
            shutil.rmtree(entry, ignore_errors=True)
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")


def _content(data: Path) -> dict[str, tuple[bytes, int]]:
    found = {}
    for path in data.resolve().rglob("*"):
        if path.is_file():
            found[str(path.relative_to(data.resolve()))] = (path.read_bytes(), path.stat().st_mode & 0o777)
    return found


def _mode(file: File) -> int:
    return 0o400 | (file.mode & 0o700)


def _write(place: Path, file: File) -> None:
    replace_file(place, file.data, mode=_mode(file))


def _private(root: Path, folder: Path) -> None:
    """Make a folder and those above it; the parents that mkdir makes by itself are everyone's."""
    for above in [*folder.parents][len(folder.relative_to(root).parts) - 1 :: -1] if folder != root else []:
        private_directory(above)
    private_directory(folder)
