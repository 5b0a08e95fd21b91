/* strings.c - finds the records of a GGUF string array: each is a length (uint64, little-endian) and that many bytes.
 * The lengths come from an untrusted file, so each is compared with what is left before it is added to anything. */
#include "oc.h"

static uint64_t read_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | at[i];
    return value;
}

oc_status oc_strings_index(const uint8_t *data, size_t size, size_t count, uint64_t max_bytes, uint64_t *offsets)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        offsets[i] = at;
        if (size - at < 8)
            return OC_ERR_FORMAT;
        uint64_t length = read_u64(data + at);
        at += 8;
        if (length > max_bytes || length > size - at)
            return OC_ERR_FORMAT;
        at += (size_t)length;
    }
    offsets[count] = at;
    return OC_OK;
}
