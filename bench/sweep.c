/* sweep.c - what the kernels are measured against: how fast this machine reads memory, and its clock.
 * Built by bench/kernels.py for the processor at hand. */
#include <stddef.h>
#include <stdint.h>

typedef int64_t vector __attribute__((vector_size(64), aligned(64)));

/* Reads `size` bytes (a multiple of 512) in ascending order, as wide as the processor can. With `ahead` > 0 it asks for
 * the bytes that far ahead: hardware prefetchers stop at the end of a page. */
int64_t read_sweep(const vector *at, size_t size, size_t ahead) {
    vector sum[8] = {0};
    for (const vector *end = at + size / sizeof *at; at < end; at += 8)
        for (int i = 0; i < 8; i++) {
            if (ahead) __builtin_prefetch((const char *)(at + i) + ahead);
            sum[i] += at[i];
        }
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    return sum[0][0];
}

/* `n` additions that wait for each other: n cycles. */
uint64_t add_chain(uint64_t n) {
    uint64_t sum = n;
    for (uint64_t i = 0; i < n; i += 16)
        for (int j = 0; j < 16; j++) {
            sum += n;
            __asm__ volatile("" : "+r"(sum));
        }
    return sum;
}
