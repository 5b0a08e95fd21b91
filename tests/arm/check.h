/* check.h - what the ARM kernel tests share: counted checks, random numbers, and buffers that end at an
 * unreadable page, so that a kernel that reads or writes one byte too far does not go unnoticed. */
#ifndef OC_TESTS_ARM_CHECK_H
#define OC_TESTS_ARM_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

void check(int ok, const char *kernel, const char *what, ...) __attribute__((format(printf, 3, 4)));

uint32_t random_bits(void);
int random_below(int n);
float random_between(float low, float high);

/* `bytes` bytes of 0xA5 whose end is the end of readable memory. release checks that nothing in front of any
 * of them was written, and gives all of them back. */
void *guarded(size_t bytes);
void release(const char *kernel);

static inline float *guarded_floats(int64_t n) { return guarded((size_t)n * sizeof(float)); }

/* equal bits, or both NaN */
static inline int same_floats(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) && !(isnan(a[i]) && isnan(b[i]))) return 0;
    return 1;
}

void test_matmul(const oc_kernel *row);
void test_attention(const oc_kernel *row);
void test_conv(const oc_kernel *row);
void test_delta(const oc_kernel *row);
void test_op(const oc_kernel *row); /* all others, and by name the two above */

/* The reference row of the same op and format. */
const oc_kernel *generic_of(const oc_kernel *row);

#endif
