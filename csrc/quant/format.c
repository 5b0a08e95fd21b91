/* format.c - the table of formats, from formats.def. */
#include "quant/format.h"

#include "quant/codecs.h"

static const oc_format formats[] = {
#define OC_FORMAT(type, name, suffix, block, file, packed, f32)                                              \
    {type, name, block, (int)sizeof(file), (int)sizeof(packed), f32, oc_dequantize_##suffix,                 \
     oc_unpack_row_##suffix},
#include "quant/formats.def"
#undef OC_FORMAT
};

int oc_format_count(void) { return (int)(sizeof formats / sizeof *formats); }

const oc_format *oc_format_at(int index) {
    return index >= 0 && index < oc_format_count() ? &formats[index] : NULL;
}

const oc_format *oc_format_get(int gguf_type) {
    for (int i = 0; i < oc_format_count(); i++)
        if (formats[i].gguf_type == gguf_type) return &formats[i];
    return NULL;
}

size_t oc_format_row_bytes(const oc_format *format, int64_t k) {
    if (k < 0 || k % format->block != 0) return 0;
    return (size_t)(k / format->block) * (size_t)format->block_bytes;
}

size_t oc_format_packed_bytes(const oc_format *format, int64_t n_rows, int64_t k) {
    size_t groups = ((size_t)n_rows + 7) / 8;
    return groups * (size_t)(k / format->block) * (size_t)format->group_bytes;
}
