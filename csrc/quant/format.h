/* format.h - what the engine needs to know of a GGUF tensor type, without its bits. */
#ifndef OC_QUANT_FORMAT_H
#define OC_QUANT_FORMAT_H

#include <stddef.h>
#include <stdint.h>

typedef struct oc_format {
    int gguf_type;       /* id in the file */
    const char *name;    /* "Q4_K" */
    int block;           /* elements per GGUF block */
    int block_bytes;     /* bytes per GGUF block */
    int group_bytes;     /* bytes of one block of 8 packed rows */
    int needs_f32;       /* 1: its matmul reads oc_act.f32, 0: the quantised codes */
    /* y (k floats) = one GGUF row, by the format's definition: the reference decoder */
    void (*dequantize)(const void *row, float *y, int64_t k);
    /* y (k floats) = row `row` of a packed matrix */
    void (*unpack_row)(const void *packed, int64_t k, int64_t row, float *y);
} oc_format;

/* NULL if the type is not supported. */
const oc_format *oc_format_get(int gguf_type);
int oc_format_count(void);
const oc_format *oc_format_at(int index);
/* Bytes of one GGUF row of k elements; 0 if k is not a multiple of the block. */
size_t oc_format_row_bytes(const oc_format *format, int64_t k);
/* Bytes of a packed (n_rows, k) matrix, n_rows rounded up to a multiple of 8. */
size_t oc_format_packed_bytes(const oc_format *format, int64_t n_rows, int64_t k);

#endif
