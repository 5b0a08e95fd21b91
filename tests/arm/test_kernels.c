/* test_kernels.c - every row of kernels.def on this processor, against exact arithmetic and the reference row.
 * Its argument is the best level that this processor should turn out to have: neon, dotprod or i8mm. There is
 * no Python in it, so that it runs under qemu-user within seconds: `make test-arm`. */
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "quant/format.h"

static int passed, failed;

void check(int ok, const char *kernel, const char *what, ...) {
    if (ok) {
        passed++;
        return;
    }
    failed++;
    va_list list;
    va_start(list, what);
    printf("FAILED %s: ", kernel);
    vprintf(what, list);
    printf("\n");
    va_end(list);
}

static const char *running = "nothing"; /* the row under test */

/* An access past a guarded buffer ends the program: say whose. */
static void on_fault(int signal) {
    printf("FAILED %s: signal %d, an access past the end of a buffer or an unknown instruction\n", running,
           signal);
    printf("%d passed, %d failed\n", passed, failed + 1);
    fflush(stdout);
    _exit(1);
}

/* ---- random numbers: xorshift, the same in every run ---- */

static uint32_t state = 2463534242u;

uint32_t random_bits(void) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

int random_below(int n) { return (int)(random_bits() >> 8) % n; }

float random_between(float low, float high) {
    return low + (high - low) * (float)(random_bits() >> 8) * 0x1p-24f;
}

/* ---- guarded memory ---- */

#define MAX_BUFFERS 256
static struct {
    uint8_t *map, *data;
    size_t size;
} buffers[MAX_BUFFERS];
static int n_buffers;

void *guarded(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (bytes / page + 2) * page;
    uint8_t *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || n_buffers == MAX_BUFFERS || mprotect(map + size - page, page, PROT_NONE)) {
        perror("guarded memory");
        exit(2);
    }
    memset(map, 0xA5, size - page);
    buffers[n_buffers].map = map;
    buffers[n_buffers].size = size;
    return buffers[n_buffers++].data = map + size - page - bytes;
}

void release(const char *kernel) {
    int intact = 1;
    while (n_buffers--) {
        for (uint8_t *p = buffers[n_buffers].map; p < buffers[n_buffers].data; p++) intact &= *p == 0xA5;
        munmap(buffers[n_buffers].map, buffers[n_buffers].size);
    }
    n_buffers = 0;
    check(intact, kernel, "wrote in front of a buffer");
}

/* ---- dispatch ---- */

const oc_kernel *generic_of(const oc_kernel *row) {
    for (int i = 0; i < oc_kernel_count(); i++) {
        const oc_kernel *other = oc_kernel_at(i);
        if (other->isa == OC_ISA_GENERIC && other->gguf_type == row->gguf_type && !strcmp(other->op, row->op))
            return other;
    }
    printf("%s has no reference\n", row->symbol);
    exit(2);
}

/* What oc_kernels holds for the op of a row. */
static void (*chosen(const oc_kernel *row))(void) {
    if (!strcmp(row->op, "matmul")) return (void (*)(void))oc_kernels.matmul[row->gguf_type];
    if (!strcmp(row->op, "pack")) return (void (*)(void))oc_kernels.pack[row->gguf_type];
#define OC_CHOSEN(name, type)                                                                                \
    if (!strcmp(row->op, #name)) return (void (*)(void))oc_kernels.name;
    OC_OPS(OC_CHOSEN)
#undef OC_CHOSEN
    return NULL;
}

/* With everything above `highest` masked, each op must go to its last row that is allowed. */
static void test_dispatch(const char *mask, oc_isa highest) {
    oc_cpu_mask(mask);
    oc_kernels_init();
    for (int i = 0; i < oc_kernel_count(); i++) {
        const oc_kernel *row = oc_kernel_at(i), *best = row;
        for (int j = 0; j < oc_kernel_count(); j++) {
            const oc_kernel *other = oc_kernel_at(j);
            if (other->isa <= highest && other->gguf_type == row->gguf_type && !strcmp(other->op, row->op))
                best = other;
        }
        check(chosen(row) == best->fn, row->symbol, "mask %s: not %s is chosen", mask ? mask : "none",
              best->symbol);
    }
    for (oc_isa isa = OC_ISA_NEON; isa < OC_ISA_COUNT; isa++)
        check(oc_cpu_has(isa) == (isa <= highest), oc_isa_name(isa), "mask %s: oc_cpu_has",
              mask ? mask : "none");
}

/* Unpacked rows are the decoded ones: the packed layout does not depend on the processor. */
static void test_packing(const oc_format *format) {
    const int64_t k = format->block > 1 ? 2 * format->block : 37, n_rows = 13;
    const size_t row_bytes = oc_format_row_bytes(format, k);
    uint8_t *file = guarded(row_bytes * (size_t)n_rows);
    for (size_t i = 0; i < row_bytes * (size_t)n_rows; i++) file[i] = (uint8_t)random_bits();
    void *packed = guarded(oc_format_packed_bytes(format, n_rows, k));
    float *decoded = guarded_floats(k), *unpacked = guarded_floats(k);
    oc_kernels.pack[format->gguf_type](file, n_rows, k, packed, 0, 2);
    for (int64_t r = 0; r < 16; r++) {
        memset(decoded, 0, (size_t)k * sizeof *decoded);
        if (r < n_rows) format->dequantize(file + (size_t)r * row_bytes, decoded, k);
        format->unpack_row(packed, k, r, unpacked);
        int equal = 1; /* rows past the end may be zero of either sign */
        for (int64_t i = 0; i < k; i++)
            equal &= unpacked[i] == decoded[i] || (isnan(unpacked[i]) && isnan(decoded[i]));
        check(equal, format->name, "row %d is not what was packed", (int)r);
    }
    release(format->name);
}

int main(int argc, char **argv) {
    oc_isa best = OC_ISA_GENERIC;
    for (oc_isa isa = OC_ISA_NEON; argc == 2 && isa < OC_ISA_COUNT; isa++)
        if (!strcmp(oc_isa_name(isa), argv[1])) best = isa;
    if (best == OC_ISA_GENERIC) {
        printf("usage: test_kernels neon|dotprod|i8mm\n");
        return 2;
    }
    signal(SIGSEGV, on_fault);
    signal(SIGILL, on_fault);
    test_dispatch("generic", OC_ISA_GENERIC);
    test_dispatch("neon", OC_ISA_NEON);
    if (best >= OC_ISA_DOTPROD) test_dispatch("dotprod", OC_ISA_DOTPROD);
    test_dispatch(NULL, best);

    for (int i = 0; i < oc_format_count(); i++) test_packing(oc_format_at(i));
    for (int i = 0; i < oc_kernel_count(); i++) {
        const oc_kernel *row = oc_kernel_at(i);
        if (!oc_cpu_has(row->isa) || !strcmp(row->op, "pack")) continue; /* test_packing has had those */
        running = row->symbol;
        if (!strcmp(row->op, "matmul"))
            test_matmul(row);
        else if (!strncmp(row->op, "attention", 9))
            test_attention(row);
        else
            test_op(row);
    }
    printf("%s: %d passed, %d failed\n", argv[1], passed, failed);
    return failed != 0;
}
