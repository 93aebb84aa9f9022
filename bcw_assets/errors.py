"""What can go wrong, as a small tree with one root. Imports nothing, so that everybody may import it."""

# What to do about something whose seal or digest is right, and that cannot be understood all the same.
OTHER_VERSION = "perhaps another version of bcw_assets wrote it: try the newest"


class BcwError(Exception):
    """A failure whose text says what is wrong, what is allowed and what to do next."""

    retry_may_help = False
    rows_are = "offending rows"  # the title of the rows

    def __init__(self, problem: str, rows: tuple[dict[str, bool | int | float | str | None], ...] = ()) -> None:
        super().__init__(problem)
        self.rows = rows  # evidence beside the text, all with the same names


class SettingsError(BcwError):
    """A variable of the environment has a value that is not allowed."""


class SourceUnavailable(BcwError):
    """The table could not be fetched, in many tries; nothing is known to be wrong with it."""


class SourceRefused(BcwError):
    """Bytes arrived, and they are not the ones that were promised."""


class TableError(BcwError):
    """The table cannot be read, or is not one that this project can work with."""


class TrainingError(BcwError):
    """No split, model or cross-validation can be made from this table with these settings."""


class StorageError(BcwError):
    """The storage refused to read or write; what was there before is still there."""


class StorageUnavailable(StorageError):
    """The storage did not answer as it should, and may the next time."""

    retry_may_help = True


class KeyMissing(StorageError):
    """Nothing is stored under this key."""


class KeyRefused(StorageError):
    """What is stored under this key is not to be read: no file, elsewhere, too large; or its name is too long."""


class KeyTooLarge(KeyRefused):
    """What is stored under this key has more bytes than were expected."""


class ArtifactError(BcwError):
    """A stored artifact is missing, damaged, or does not belong to the others."""

    def __init__(self, problem: str, asset: str) -> None:
        super().__init__(f"{problem}. To make it: bcw refresh {asset}; or everything: bcw refresh")


class ReleaseError(BcwError):
    """A release is unknown, damaged, or may not be used for what was asked."""


class ReleaseRefused(ReleaseError):
    """The gate keeps a candidate from being released; the rows are what it looked at."""

    rows_are = "gate"


class ScoringError(BcwError):
    """Rows cannot be scored with this release, or the scores cannot be written."""
