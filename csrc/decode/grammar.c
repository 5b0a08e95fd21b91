/* grammar.c - the nodes of a grammar: checked, copied, and known to lead somewhere or not. */
#include "decode/grammar.h"

#include <stdlib.h>
#include <string.h>

#define MOST (1u << 24) /* nodes, edges or sets: keeps every size below 2^31 */

static oc_status fail(char *err, const char *text) {
    size_t n = strlen(text);
    memcpy(err, text, n + 1);
    return OC_ERR_ARGUMENT;
}

/* ---- checks ---- */

static bool is_sound(const oc_grammar *g, const oc_grammar_node *node) {
    switch (node->kind) {
    case OC_NODE_RETURN: return true;
    case OC_NODE_BYTES: return node->next < g->n_nodes && node->a < g->n_sets;
    case OC_NODE_FORK: return node->a <= g->n_edges && node->b <= g->n_edges - node->a;
    case OC_NODE_CALL: return node->next < g->n_nodes && node->a < g->n_nodes;
    case OC_NODE_REPEAT: return node->next < g->n_nodes && node->a < g->n_nodes && node->b <= node->c;
    case OC_NODE_TEXT: return node->next < g->n_nodes && node->b <= node->c;
    case OC_NODE_SPACE: return node->next < g->n_nodes;
    }
    return false;
}

static oc_status check(const oc_grammar *g, char *err) {
    if (g->root >= g->n_nodes) return fail(err, "the grammar has no root");
    for (uint32_t i = 0; i < g->n_sets; i++) {
        const uint64_t *bits = g->sets[i].bits;
        if (!(bits[0] | bits[1] | bits[2] | bits[3])) return fail(err, "a set of bytes is empty");
    }
    for (uint32_t i = 0; i < g->n_edges; i++) {
        if (g->edges[i] >= g->n_nodes) return fail(err, "an edge of the grammar leads nowhere");
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        if (!is_sound(g, &g->nodes[i])) return fail(err, "a node of the grammar is not sound");
    }
    return OC_OK;
}

/* ---- what leads somewhere ---- */

typedef struct needs { /* which nodes wait for which */
    uint32_t *first;   /* (n_nodes + 1) of those that wait for a node, in `waiting` */
    uint32_t *waiting;
    uint32_t *missing; /* (n_nodes) how many nodes must lead somewhere before this one does */
    uint32_t *found;   /* (n_nodes) a queue */
} needs;

/* The nodes that `node` waits for, of which a FORK needs one and others all. Returns their number. */
static uint32_t waits_for(const oc_grammar *g, const oc_grammar_node *node, uint32_t pair[2], const uint32_t **all) {
    *all = pair;
    pair[0] = node->next;
    pair[1] = node->a;
    switch (node->kind) {
    case OC_NODE_RETURN: return 0;
    case OC_NODE_FORK: *all = g->edges + node->a; return node->b;
    case OC_NODE_CALL: return 2;
    case OC_NODE_REPEAT: return node->b > 0 ? 2 : 1;
    default: return 1;
    }
}

static void tie(const oc_grammar *g, needs *n) {
    uint32_t pair[2];
    const uint32_t *all;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        uint32_t count = waits_for(g, &g->nodes[i], pair, &all);
        n->missing[i] = g->nodes[i].kind == OC_NODE_FORK ? 1 : count;
        for (uint32_t k = 0; k < count; k++) n->first[all[k] + 1]++;
    }
    for (uint32_t i = 0; i < g->n_nodes; i++) n->first[i + 1] += n->first[i];
    for (uint32_t i = 0; i < g->n_nodes; i++) { // moves first[x] from where the list of x begins to where it ends
        uint32_t count = waits_for(g, &g->nodes[i], pair, &all);
        for (uint32_t k = 0; k < count; k++) n->waiting[n->first[all[k]]++] = i;
    }
    for (uint32_t i = g->n_nodes; i > 0; i--) n->first[i] = n->first[i - 1];
    n->first[0] = 0;
}

static void spread(const oc_grammar *g, needs *n) {
    uint32_t head = 0, tail = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].kind == OC_NODE_RETURN) n->found[tail++] = i;
    }
    while (head < tail) {
        uint32_t done = n->found[head++];
        g->leads[done] = 1;
        for (uint32_t k = n->first[done]; k < n->first[done + 1]; k++) {
            uint32_t node = n->waiting[k];
            if (n->missing[node] > 0 && --n->missing[node] == 0) n->found[tail++] = node;
        }
    }
}

static oc_status find_leading(oc_grammar *g, char *err) {
    size_t n = g->n_nodes, ties = 2 * n + g->n_edges;
    uint64_t shared = 0; // several FORKs may have one stretch of edges
    for (size_t i = 0; i < n; i++) shared += g->nodes[i].kind == OC_NODE_FORK ? g->nodes[i].b : 0;
    if (shared > g->n_edges) return fail(err, "the edges of the grammar are shared");
    uint32_t *memory = calloc(3 * n + 1 + ties, sizeof *memory);
    if (!memory) return OC_ERR_NOMEM;
    needs found = {memory, memory + 3 * n + 1, memory + n + 1, memory + 2 * n + 1};
    tie(g, &found);
    spread(g, &found);
    free(memory);
    return g->leads[g->root] ? OC_OK : fail(err, "nothing can match");
}

/* ---- life ---- */

static void note_plain(oc_grammar *g) {
    for (uint32_t i = 0; i < g->n_sets; i++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            if (oc_is_plain((uint8_t)byte) && oc_set_has(&g->sets[i], (uint8_t)byte)) g->has_plain[i] = 1;
        }
    }
}

static void *copy(const void *data, size_t n, size_t size) {
    void *made = calloc(n + 1, size);
    if (made && n) memcpy(made, data, n * size);
    return made;
}

void oc_grammar_destroy(oc_grammar *g) {
    if (!g) return;
    free(g->nodes);
    free(g->edges);
    free(g->sets);
    free(g->has_plain);
    free(g->leads);
    free(g);
}

static oc_status fill(oc_grammar *g, const oc_grammar_spec *spec, char *err) {
    g->nodes = copy(spec->nodes, spec->n_nodes, sizeof *g->nodes);
    g->edges = copy(spec->edges, spec->n_edges, sizeof *g->edges);
    g->sets = copy(spec->sets, spec->n_sets, sizeof *g->sets);
    g->has_plain = calloc((size_t)spec->n_sets + 1, 1);
    g->leads = calloc((size_t)spec->n_nodes + 1, 1);
    if (!g->nodes || !g->edges || !g->sets || !g->has_plain || !g->leads) return OC_ERR_NOMEM;
    oc_status status = check(g, err);
    if (status != OC_OK) return status;
    note_plain(g);
    return find_leading(g, err);
}

oc_status oc_grammar_create(const oc_grammar_spec *spec, oc_grammar **out, char *err) {
    *out = NULL;
    if (spec->n_nodes > MOST || spec->n_edges > MOST || spec->n_sets > MOST)
        return fail(err, "the grammar is too large");
    oc_grammar *g = calloc(1, sizeof *g);
    if (!g) return OC_ERR_NOMEM;
    g->id = spec->id;
    g->root = spec->root;
    g->n_nodes = spec->n_nodes;
    g->n_edges = spec->n_edges;
    g->n_sets = spec->n_sets;
    oc_status status = fill(g, spec, err);
    if (status == OC_OK) *out = g;
    else oc_grammar_destroy(g);
    return status;
}
