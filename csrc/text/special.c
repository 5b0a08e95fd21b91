/* special.c - special tokens in text: a trie over their bytes, walked wherever one can start. */
#include "text/text.h"

static uint32_t find_sibling(const oc_vocab *vocab, uint32_t node, uint8_t byte) {
    while (node && vocab->trie[node].byte != byte) node = vocab->trie[node].sibling;
    return node;
}

static oc_status new_node(oc_vocab *vocab, uint8_t byte, uint32_t sibling, uint32_t *out) {
    oc_status status =
        oc_text_reserve((void **)&vocab->trie, &vocab->trie_capacity, vocab->trie_count + 1, sizeof *vocab->trie);
    if (status) return status;
    if (vocab->trie_count >= UINT32_MAX) return OC_ERR_NOMEM;
    *out = (uint32_t)vocab->trie_count++;
    vocab->trie[*out] = (oc_trie_node){.sibling = sibling, .id = OC_NO_TOKEN, .byte = byte};
    return OC_OK;
}

oc_status oc_special_add(oc_vocab *vocab, int32_t id) {
    size_t length;
    const uint8_t *key = oc_vocab_bytes(vocab, id, &length);
    if (length == 0) return OC_OK;
    uint32_t node = vocab->trie_root[key[0]];
    if (!node) {
        oc_status status = new_node(vocab, key[0], 0, &node);
        if (status) return status;
        vocab->trie_root[key[0]] = node;
    }
    for (size_t i = 1; i < length; i++) {
        uint32_t child = find_sibling(vocab, vocab->trie[node].child, key[i]);
        if (!child) {
            oc_status status = new_node(vocab, key[i], vocab->trie[node].child, &child);
            if (status) return status;
            vocab->trie[node].child = child;
        }
        node = child;
    }
    if (vocab->trie[node].id == OC_NO_TOKEN) vocab->trie[node].id = id; // the first of equal tokens
    return OC_OK;
}

size_t oc_special_find(const oc_vocab *vocab, const uint8_t *text, size_t length, bool parse_special, int32_t *id) {
    *id = OC_NO_TOKEN;
    for (size_t start = 0; start < length; start++) {
        uint32_t node = vocab->trie_root[text[start]];
        for (size_t i = start + 1; node; i++) {
            int32_t found = vocab->trie[node].id;
            if (found != OC_NO_TOKEN && (parse_special || vocab->types[found] == OC_TOKEN_USER_DEFINED)) *id = found;
            if (i == length) break;
            node = find_sibling(vocab, vocab->trie[node].child, text[i]);
        }
        if (*id != OC_NO_TOKEN) return start;
    }
    return length;
}
