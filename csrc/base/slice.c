/* slice.c - sched_setattr, which the C library does not wrap everywhere. */
#include "base/slice.h"

#ifdef __linux__
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(SYS_sched_setattr) && defined(SYS_sched_getattr)
#define SLICE_NS 20000000 /* longer than any usual one: 0.7 to 6 ms */

/* The kernel's struct sched_attr in its first version. */
typedef struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
} attributes;

enum { OTHER = 0, BATCH = 3 }; /* policies of a thread that nobody has given a special one */

void oc_slice_lengthen(void) {
    attributes own = {0};
    if (syscall(SYS_sched_getattr, 0, &own, sizeof own, 0) != 0 || (own.policy != OTHER && own.policy != BATCH)) return;
    own.runtime = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &own, 0); /* or it stays as it was */
}
#else
void oc_slice_lengthen(void) {}
#endif
