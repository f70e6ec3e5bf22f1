"""A wall clock that a test sets for a process: a library loaded before the C library, and a file with seconds.

Only the wall clock: monotonic time goes on as it does, as where a machine's clock is set.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long long *ahead;
static int (*of_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("SKEW_FILE"), O_RDONLY);
    ahead = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    of_clock = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t id, struct timespec *at) {
    if (!of_clock) of_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = of_clock(id, at);
    if (!failed && ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def compiler() -> str | None:
    """Return the C compiler of this machine."""
    return shutil.which("cc")


class SkewedClock:
    """The clock of processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        found = compiler()
        assert found is not None
        self._file = folder / "ahead"
        source, library = folder / "skew.c", folder / "skew.so"
        source.write_text(_SOURCE)
        subprocess.run([found, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "SKEW_FILE": str(self._file)}

    def set(self, ahead: int) -> None:
        """Set it so many seconds ahead of this process's."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", ahead))
