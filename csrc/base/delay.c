/* delay.c - how long a thread was kept waiting for a core by other threads of the system. */
#include "base/delay.h"

#ifdef __linux__
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/pool.h"

/* To read an open file takes a fifth of the time that it takes to open it as well. */
static struct {
    long thread; /* whose file it is */
    int file;    /* + 1 */
} seats[OC_MAX_THREADS];

static int open_file(int seat) {
    const long thread = syscall(SYS_gettid);
    if (seats[seat].file > 0 && seats[seat].thread != thread) {
        close(seats[seat].file - 1);
        seats[seat].file = 0;
    }
    if (seats[seat].file == 0) seats[seat].file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC) + 1;
    seats[seat].thread = thread;
    return seats[seat].file - 1;
}

/* "time on a core, time waiting for one, slices" */
long long oc_delay_ns(int seat) {
    char text[96], *waiting;
    const int file = open_file(seat);
    const ssize_t n = file < 0 ? -1 : pread(file, text, sizeof text - 1, 0);
    if (n <= 0) return 0;
    text[n] = 0;
    strtoull(text, &waiting, 10);
    return strtoll(waiting, NULL, 10);
}
#else
long long oc_delay_ns(int seat) { return 0; }
#endif
