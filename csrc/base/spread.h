/* spread.h - workers on other cores than the rest of their run, while other processes want the same cores. */
#ifndef OC_BASE_SPREAD_H
#define OC_BASE_SPREAD_H

/* Called by each thread at the begin of its part of a run. Two threads that wait for each other on one core look like one
 * to the kernel's balance, which then gives a busy process the other core for good. So a worker that finds itself on a
 * core of a thread before it leaves such cores out of its affinity, and takes them back when nobody is contended.
 * Thread 0 is the caller's and stays as it is. Nothing happens where the system has no affinity of threads. */
void oc_spread(int thread, int is_contended);

#endif
