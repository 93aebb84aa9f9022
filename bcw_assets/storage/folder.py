"""Bytes under keys in a folder of this machine. Nothing else in the package writes a file."""

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bcw_assets.errors import KeyMissing, KeyRefused, StorageError
from bcw_assets.storage.store import TEMPORARY, require_key, require_length, require_prefix

NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}  # what file systems without hard links answer


class FolderStore:
    """A folder."""

    def __init__(self, root: Path) -> None:
        """Keep everything below `root`, which is made when the first file is written."""
        self._root = root

    def read(self, key: str, at_most: int | None = None) -> bytes:
        """Return the bytes of the file."""
        with self._explained("read", key):
            path = self._existing(key)
            require_length(key, path.stat().st_size, at_most)
            return path.read_bytes()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write every file beside its place, then move all into place; put the old ones back if a move fails."""
        with self._explained("write", ", ".join(files)), _Staged() as staged:
            paths = {self._path(key): content for key, content in files.items()}
            for path, content in paths.items():
                staged.add(path, content)
            staged.replace_all()

    def create(self, key: str, content: bytes) -> bool:
        """Write the file beside its place and link it there, which succeeds for one writer only."""
        path = self._path(key)
        with self._explained("create", key), _Staged() as staged:
            staged.add(path, content)
            return staged.link(path)

    def list(self, prefix: str) -> list[str]:
        """Return what is below the folder, but for folders, and has a key that begins with `prefix`."""
        require_prefix(prefix)
        above = prefix.rpartition("/")[0]
        folder = self._path(above) if above else self._root
        with self._explained("list", prefix):
            if folder.exists() and not folder.is_dir():
                raise KeyRefused(f"{above} in {self._root.absolute()} is no folder. Move it away and try again")
            # Pipes and links to nowhere too, so that whoever expects a file there hears of them.
            found = (
                path.relative_to(self._root).as_posix()
                for path in folder.rglob("*")
                if path.is_symlink() or not path.is_dir()
            )
            return sorted(key for key in found if key.startswith(prefix) and not key.endswith(TEMPORARY))

    def exists(self, key: str) -> bool:
        """Say whether there is such a file."""
        with self._explained("look up", key):
            return self._path(key).is_file()

    def delete(self, key: str) -> None:
        """Remove the file."""
        with self._explained("delete", key):
            self._path(key).unlink(missing_ok=True)

    def address(self, key: str) -> str:
        """Return the absolute path."""
        self._path(key)
        return f"{self._root.resolve()}/{key}"

    def _path(self, key: str) -> Path:
        """Return the file of a key, which cannot leave the folder."""
        require_key(key)
        path = self._root / PurePosixPath(key)
        with self._explained("look up", key):
            leads_to = Path(os.path.realpath(path))
        if not leads_to.is_relative_to(os.path.realpath(self._root)):
            raise KeyRefused(
                f"{key} leads out of {self._root.absolute()} by a symbolic link, to {leads_to}; put the file or the "
                f"folder itself there, or set BCW_STORAGE (BCW_RELEASES for releases) to where it is"
            )
        return path

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if not path.exists():
            raise KeyMissing(f"{key} is not in {self._root.absolute()}")
        if not path.is_file():  # reading a pipe would wait for ever
            raise KeyRefused(f"{key} in {self._root.absolute()} is no regular file. Move it away and try again")
        return path

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            remedy = "Make room or mend" if verb in ("write", "create") else "Mend"
            raise StorageError(
                f"Could not {verb} {key} in {self._root.absolute()}: {error.strerror or error}. What was stored before "
                f"is unchanged. {remedy} the permissions, or set BCW_STORAGE (BCW_RELEASES for releases) to another "
                f"folder, and try again"
            ) from error


class _Staged:
    """Files written beside their places; those that did not get into place are gone at the end."""

    def __init__(self) -> None:
        self._temporary: dict[Path, Path] = {}

    def __enter__(self) -> "_Staged":
        return self

    def __exit__(self, *_: object) -> None:
        for temporary in self._temporary.values():
            temporary.unlink(missing_ok=True)

    def add(self, path: Path, content: bytes) -> None:
        """Write `content` to a temporary file in the folder of `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        self._temporary[path] = temporary
        # O_EXCL and 0o666: never follows a link, and the umask decides who may read (mkstemp would say 0600).
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def replace_all(self) -> None:
        """Move every file into place; if one cannot be moved, put back what the others replaced."""
        # In memory: links to the old files would have to be removed again when all is well, and that can fail too.
        before = {path: path.read_bytes() if path.exists() else None for path in self._temporary}
        replaced = []
        try:
            for path in before:
                self._move(path)
                replaced.append(path)
            for folder in {path.parent for path in replaced}:
                _fsync(folder)
        except OSError as error:
            try:
                for path in replaced:
                    self._put_back(path, before[path])
            except OSError as worse:
                raise StorageError(
                    f"Could not write {path}: {error.strerror}; nor could the old files be put back: {worse.strerror}. "
                    f"Old and new are mixed now, which loading refuses; make the artifact again"
                ) from error
            raise

    def link(self, path: Path) -> bool:
        """Give the file its name unless the name is taken, and say whether it was given."""
        try:
            _name_if_free(self._temporary[path], path)
        except FileExistsError:
            return False
        try:
            self._temporary[path].unlink()
            del self._temporary[path]
            _fsync(path.parent)
        except OSError:
            path.unlink()
            raise
        return True

    def _move(self, path: Path) -> None:
        os.replace(self._temporary[path], path)
        del self._temporary[path]

    def _put_back(self, path: Path, content: bytes | None) -> None:
        if content is None:
            path.unlink()
        else:
            self.add(path, content)
            self._move(path)


def _name_if_free(temporary: Path, path: Path) -> None:
    """Make `path` a second name of the temporary file, or a copy where there are no links; FileExistsError if taken."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        content = temporary.read_bytes()
        with path.open("xb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink()
                raise


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
