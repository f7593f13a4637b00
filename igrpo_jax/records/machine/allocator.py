"""How the C library hands out a run's memory on Linux; imports nothing heavy, for Python starts anew with it."""

import os
import sys

ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776"
    ":glibc.malloc.arena_max=1"
}
"""Makes the C library on Linux take huge pages and keep what is freed, whichever thread asks: arenas other than the
first one map large blocks anew each time.

An update's temporary memory is as large at every step; giving it back means to have gigabytes of pages zeroed anew.
"""


def keep_memory() -> None:
    """Starts Python again with `ALLOCATOR`, which a process can only be born with; a setting of the user's stays."""
    if sys.platform == "linux" and not ALLOCATOR.keys() & os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | ALLOCATOR)
