"""Full disks, made by the kernel."""

import resource
from contextlib import contextmanager


@contextmanager
def no_file_above(size):
    """Let the kernel refuse to let any file of this process grow above ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
