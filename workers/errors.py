"""What can go wrong in a trial, by who can do something about it."""

from metaloom.learners.errors import BadEnvironment, BadInput, MetaloomError


class TrialFailed(MetaloomError):  # noqa: N818
    """One trial cannot go on: a loss that is not finite, memory that ran out. The search goes on."""


class CheckpointError(MetaloomError):
    """A checkpoint is damaged, of a newer format, or not of this trial."""


class BundleError(BadInput):
    """A bundle is damaged, of a newer format, or asked for what it cannot do."""


class StorageError(BadEnvironment):
    """A file could not be written: a full disk, a read-only folder."""


class ExtraMissing(BadEnvironment):
    """A package of an extra is not installed; the message names the extra."""


class DeviceError(BadEnvironment):
    """The device asked for is not there, or cannot do what is asked."""
