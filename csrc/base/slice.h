/* slice.h - time slices of threads that compute. */
#ifndef OC_BASE_SLICE_H
#define OC_BASE_SLICE_H

/* Asks for long time slices for the calling thread, whose share of a core stays what it is. An event loop, or a client,
 * has something to do for a moment while such threads hold all cores without end: Linux 6.12 and later lets it have one
 * at once if its slice is shorter than theirs, and else at the end of theirs, which is a tick of some milliseconds. Does
 * nothing where the system knows no slices of threads. */
void oc_slice_lengthen(void);

#endif
