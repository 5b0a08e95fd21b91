/* unicode.h - UTF-8 decoding and the character classes that pre-tokenizers ask for. */
#ifndef OC_TEXT_UNICODE_H
#define OC_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#include "text/unicode_tables.h"

/* What a character is, one bit each, so that a set of classes is a number. */
enum {
    OC_OTHER = 1 << 0,    // controls, formats, what is not assigned
    OC_UPPER = 1 << 1,    // and title case
    OC_LOWER = 1 << 2,
    OC_CASELESS = 1 << 3, // letters without case, modifier letters
    OC_MARK = 1 << 4,
    OC_NUMBER = 1 << 5,
    OC_PUNCTUATION = 1 << 6,
    OC_SYMBOL = 1 << 7,
    OC_SPACE = 1 << 8,
    OC_LETTER = OC_UPPER | OC_LOWER | OC_CASELESS
};

/* Code point at p (n >= 1 bytes are there) and its length in bytes. A byte that starts no valid sequence stands for
 * itself as U+FFFD with length 1, so any bytes can be walked. */
static inline uint32_t oc_utf8_get(const uint8_t *p, size_t n, size_t *length) {
    uint32_t c = p[0];
    *length = 1;
    if (c < 0x80) return c;
    if (c >= 0xC2 && c < 0xE0 && n >= 2 && (p[1] & 0xC0) == 0x80) {
        *length = 2;
        return (c & 0x1F) << 6 | (p[1] & 0x3Fu);
    }
    if (c >= 0xE0 && c < 0xF0 && n >= 3 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80) {
        uint32_t code = (c & 0x0F) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) {
            *length = 3;
            return code;
        }
    } else if (c >= 0xF0 && c < 0xF5 && n >= 4 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80 &&
               (p[3] & 0xC0) == 0x80) {
        uint32_t code = (c & 0x07) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
        if (code >= 0x10000 && code <= 0x10FFFF) {
            *length = 4;
            return code;
        }
    }
    return 0xFFFD;
}

static inline int oc_class(uint32_t code) {
    return 1 << (oc_class_stage2[oc_class_stage1[code >> 8] * 128u + (code >> 1 & 127)] >> (4 * (code & 1)) & 15);
}

#endif
