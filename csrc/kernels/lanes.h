/* lanes.h - vectors in plain C for op pack: the compiler makes them of what the level has. */
#ifndef OC_KERNELS_LANES_H
#define OC_KERNELS_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t lanes __attribute__((vector_size(32))); /* [8 rows][4 bytes] */
typedef uint32_t words __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(16)));
typedef uint8_t bytes __attribute__((vector_size(16)));

/* Lane i of the result is lane index i of a followed by b. */
#if defined(__clang__)
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

#endif
