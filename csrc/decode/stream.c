/* stream.c - one sequence that answers by itself: from the end of a step to the beginning of the next.
 *
 * Nothing runs on the other cores in between, so all that needs to be known for the next step is done here and nothing
 * else; what a token is to be turned into is the caller's, who does it while that step is under way. A step leaves
 * nothing in the caches but weights: what is touched here is what it costs.
 */
#include <time.h>

#include "oc.h"

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

oc_status oc_stream_accept(oc_stream *s, int32_t token) {
    oc_sampler_accept(s->sampler, token);
    return s->lookup ? oc_lookup_accept(s->lookup, token) : OC_OK;
}

oc_status oc_stream_choose(oc_stream *s, int32_t row, const uint32_t *allowed, int32_t *token) {
    oc_logits logits = oc_step_logits(s->engine, row);
    oc_status status = oc_sampler_sample(s->sampler, &logits, allowed, token);
    return status == OC_OK ? oc_stream_accept(s, *token) : status;
}

oc_status oc_stream_begin(oc_stream *s, int32_t token, int64_t wanted, char *err) {
    int32_t n = 1;
    s->wanted = wanted;
    s->tokens[0] = token;
    if (s->lookup && oc_engine_kv_blocks_free(s->engine) > 0)
        n += oc_lookup_propose(s->lookup, wanted, s->costs, s->tokens + 1);
    s->item = (oc_batch_item){.seq = s->seq, .tokens = s->tokens, .n_tokens = n, .n_outputs = n, .cancel = s->cancel};
    s->began = now_ns();
    oc_status status = oc_step_begin(s->engine, &s->item, 1, err);
    s->is_begun = status == OC_OK;
    if (s->is_begun) s->drafted += n - 1;
    return status;
}

/* As long as what follows is what the draft has, the next row of logits is good too. */
static oc_status follow(oc_stream *s, int32_t *tokens, int32_t *n) {
    for (int32_t row = 0; row < s->item.n_tokens; row++) {
        oc_status status = oc_stream_choose(s, row, NULL, &tokens[row]);
        if (status != OC_OK) return status;
        *n = row + 1;
        if (*n == s->item.n_tokens || tokens[row] != s->tokens[*n]) break;
        s->accepted++;
    }
    return OC_OK;
}

oc_status oc_stream_advance(oc_stream *s, int32_t *tokens, int32_t *n, char *err) {
    const float *logits;
    int64_t stride;
    *n = 0;
    s->is_begun = 0;
    s->joined = now_ns();
    oc_status status = oc_step_finish(s->engine, 0, &logits, &stride, err);
    if (status != OC_OK) return status;
    s->ended = now_ns();
    oc_costs_observe(s->costs, s->item.n_tokens, 1e-9 * (double)(s->ended - s->began));
    status = follow(s, tokens, n);
    if (status != OC_OK) return status;
    oc_seq_truncate(s->seq, oc_seq_length(s->seq) - s->item.n_tokens + *n);
    char unheard[OC_ERR_LEN];
    if (*n <= s->wanted) oc_stream_begin(s, tokens[*n - 1], s->wanted - *n, unheard);
    return OC_OK;
}

void oc_stream_give_up(oc_stream *s) {
    const float *logits;
    int64_t stride;
    char unheard[OC_ERR_LEN];
    if (s->is_begun) oc_step_finish(s->engine, 1, &logits, &stride, unheard);
    s->is_begun = 0;
}
