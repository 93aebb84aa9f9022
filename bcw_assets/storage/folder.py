"""Bytes under keys in a folder of this machine. Nothing else in the package writes a file."""

import errno
import hashlib
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from bcw_assets.errors import KeyMissing, KeyRefused, StorageError
from bcw_assets.locations import TEMPORARY, require_key, require_length

LOSSES = {errno.EIO, errno.ENOSPC, errno.EDQUOT}  # of a folder's fsync: a name was lost; else it cannot be done there
UNCHANGED = "What was stored before is unchanged"


class FolderStore:
    """A folder, which is made when the first file is written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, key: str, at_most: int | None = None) -> bytes:
        path = self._path(key)
        with self._explain_errors("read", key):
            if not (path.exists() or path.is_symlink()):  # a link to nowhere is there, too
                self._locate_folder(key.rpartition("/")[0])
                raise KeyMissing(f"{key} is not in {self._root.absolute()}")
            if not path.is_file():  # reading a pipe would wait for ever
                raise KeyRefused(f"{key} in {self._root.absolute()} is no regular file. Move it away and try again")
            require_length(key, path.stat().st_size, at_most)
            return path.read_bytes()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write every file beside its place, so that a full disk changes nothing, then move one after the other."""
        keys = ", ".join(files)
        paths = {key: self._path(key) for key in files}
        with ExitStack() as stack:
            with self._explain_errors("write", keys):
                staged = {paths[key]: stack.enter_context(_stage(paths[key], files[key])) for key in files}
            with self._explain_errors("write", keys, "Files may be new now; loading refuses old and new ones mixed"):
                for path, temporary in staged.items():
                    os.replace(temporary, path)
                for folder in {path.parent for path in staged}:
                    _fsync(folder)

    def create(self, key: str, content: bytes) -> bool:
        """Write the file beside its place and link it there, which succeeds for one writer only."""
        path = self._path(key)
        with self._explain_errors("create", key), _stage(path, content) as temporary:
            try:
                try:
                    os.link(temporary, path)
                except OSError:  # each share says in its own way that it has no links; a full disk stops this, too
                    with path.open("xb") as claim:  # one writer gets it, and it is empty until it is whole
                        try:
                            claim.close()
                            os.replace(temporary, path)
                        except OSError:
                            path.unlink()
                            raise
            except FileExistsError:
                return False
            try:
                _fsync(path.parent)
            except OSError:
                path.unlink()
                raise
            return True

    def list(self, prefix: str) -> list[str]:
        with self._explain_errors("list", prefix or "what is"):
            folder = self._locate_folder(prefix.rpartition("/")[0])
            # Pipes and links to nowhere too, so that whoever expects a file there hears of them.
            paths = (
                Path(above, name)
                for above, folders, names in os.walk(folder, onerror=_raise_unless_missing)
                for name in [*names, *(name for name in folders if Path(above, name).is_symlink())]
            )
            keys = (path.relative_to(self._root).as_posix() for path in paths)
            return sorted(key for key in keys if key.startswith(prefix) and not key.endswith(TEMPORARY))

    def delete(self, key: str) -> None:
        with self._explain_errors("delete", key):
            self._path(key).unlink(missing_ok=True)

    def remove_leftovers(self, keys: Collection[str]) -> None:
        """Remove what killed writers left of files that are there by now, and that nobody can want any more."""
        paths = {_hide_name(path): path for path in map(self._path, keys)}
        for folder in {path.parent for path in paths.values()}:
            for leftover in folder.glob(f".*{TEMPORARY}"):
                path = paths.get(leftover.with_suffix("").with_suffix(""))
                if path and path.exists():
                    leftover.unlink(missing_ok=True)

    def address(self, key: str) -> str:
        self._path(key)
        return f"{self._root.resolve()}/{key}"

    def _locate_folder(self, name: str) -> Path:
        """Return the folder of keys that begin with `name`, which is there or not, but is nothing else."""
        folder = self._path(name) if name else self._root
        if folder.exists() and not folder.is_dir():
            what = f"{name} in {self._root.absolute()}" if name else self._root.absolute()
            raise KeyRefused(f"{what} is no folder. Move it away or name another, and try again")
        return folder

    def _path(self, key: str) -> Path:
        """Return the file of a key, which cannot leave the folder."""
        require_key(key)
        path = self._root / PurePosixPath(key)
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(self._root)):
            raise KeyRefused(
                f"{key} leads out of {self._root.absolute()} by a symbolic link, to {target}; put the file or the "
                f"folder itself there, or set BCW_STORAGE (BCW_RELEASES for releases) to where it is"
            )
        return path

    @contextmanager
    def _explain_errors(self, verb: str, key: str, state: str = UNCHANGED) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = KeyRefused if error.errno == errno.ENAMETOOLONG else StorageError
            remedy = "Make room or mend the permissions" if verb in ("write", "create") else "Mend the permissions"
            remedy = "Give it a shorter name" if kind is KeyRefused else remedy
            raise kind(
                f"Could not {verb} {key} in {self._root.absolute()}: {error.strerror or error}. {state}. {remedy}, or "
                f"take another folder (BCW_STORAGE, BCW_RELEASES, or bcw predict -o), and try again"
            ) from error


@contextmanager
def _stage(path: Path, content: bytes) -> Iterator[Path]:
    """Give a temporary file with this content in the folder of `path`; what is left of it at the end, is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{_hide_name(path)}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:  # never through a link; the umask decides who may read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):  # it got its name, or it stays: nothing lists it
            temporary.unlink()


def _hide_name(path: Path) -> Path:
    """Return how the temporary files of a path begin: short, for a name may be as long as the file system allows."""
    return path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}")


def _fsync(folder: Path) -> None:
    """Make the names in a folder last, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in LOSSES:
            raise


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # nothing was stored yet, or it was deleted meanwhile
        raise OSError(error.errno, f"{error.strerror} ({error.filename})") from error
