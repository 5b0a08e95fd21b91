/* delay.h - how long a thread was kept waiting for a core by other threads of the system. */
#ifndef OC_BASE_DELAY_H
#define OC_BASE_DELAY_H

/* Nanoseconds, since it began, that the calling thread was ready to run while another one had its core; 0 where the
 * system does not say. What a hypervisor takes of a running thread is not in it. `seat` is a number below
 * OC_MAX_THREADS that one thread at a time may have. */
long long oc_delay_ns(int seat);

#endif
