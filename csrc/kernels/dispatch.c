/* dispatch.c - fills oc_kernels from kernels.def: of every op the best row that the processor can run, and of
 * matmul rows the best that also runs right. */
#include "kernels/kernels.h"

#include <string.h>

/* Prototypes of every row. */
#define OC_OP(op, isa, function) extern oc_proto_##op function;
#define OC_MATMUL(type, name, isa, function) extern oc_proto_matmul function;
#define OC_PACK(type, name, isa, function) extern oc_proto_pack function;
#define OC_PROTO(name, type) typedef __typeof__(*(type)0) oc_proto_##name;
OC_OPS(OC_PROTO)
OC_PROTO(matmul, oc_matmul_fn)
OC_PROTO(pack, oc_pack_fn)
#include "kernels/kernels.def"
#undef OC_OP
#undef OC_MATMUL
#undef OC_PACK

typedef void (*any_fn)(void);

static const oc_kernel rows[] = {
#define OC_OP(op, isa, function) {#op, "", #function, -1, OC_ISA_##isa, (any_fn)function},
#define OC_MATMUL(type, name, isa, function) {"matmul", name, #function, type, OC_ISA_##isa, (any_fn)function},
#define OC_PACK(type, name, isa, function) {"pack", name, #function, type, OC_ISA_##isa, (any_fn)function},
#include "kernels/kernels.def"
#undef OC_OP
#undef OC_MATMUL
#undef OC_PACK
    {"", "", "", -1, OC_ISA_GENERIC, NULL},
};

oc_kernel_table oc_kernels;

int oc_kernel_count(void) { return (int)(sizeof rows / sizeof *rows) - 1; }

const oc_kernel *oc_kernel_at(int index) { return index >= 0 && index < oc_kernel_count() ? &rows[index] : NULL; }

static int is_matmul(const oc_kernel *row) { return strcmp(row->op, "matmul") == 0; }

static int is_pack(const oc_kernel *row) { return strcmp(row->op, "pack") == 0; }

int oc_kernel_choose(const oc_kernel *const *candidates, int n) {
    const oc_kernel *reference = candidates[0];
    for (int i = n - 1; i > 0; i--) {
        const oc_kernel *row = candidates[i];
        if (!oc_cpu_has(row->isa)) continue;
        if (!is_matmul(row)) return i;
        if (oc_matmul_agrees(row->gguf_type, (oc_matmul_fn)row->fn, (oc_matmul_fn)reference->fn)) return i;
    }
    return 0;
}

static void set(oc_kernel_table *table, const oc_kernel *row) {
    if (is_matmul(row)) table->matmul[row->gguf_type] = (oc_matmul_fn)row->fn;
    else if (is_pack(row)) table->pack[row->gguf_type] = (oc_pack_fn)row->fn;
#define OC_SET(name, type) else if (strcmp(row->op, #name) == 0) table->name = (type)row->fn;
    OC_OPS(OC_SET)
#undef OC_SET
}

static int same_op(const oc_kernel *a, const oc_kernel *b) {
    return a->gguf_type == b->gguf_type && strcmp(a->op, b->op) == 0;
}

void oc_kernels_init(void) {
    oc_kernel_table table;
    memset(&table, 0, sizeof table);
    for (int i = 0; i < oc_kernel_count(); i++) {
        const oc_kernel *candidates[OC_ISA_COUNT];
        int n = 0;
        if (rows[i].isa != OC_ISA_GENERIC) continue;
        for (int j = i; j < oc_kernel_count(); j++)
            if (same_op(&rows[i], &rows[j])) candidates[n++] = &rows[j];
        set(&table, candidates[oc_kernel_choose(candidates, n)]);
    }
    oc_kernels = table;
}

int oc_kernel_is_chosen(const oc_kernel *row) {
    if (is_matmul(row)) return oc_kernels.matmul[row->gguf_type] == (oc_matmul_fn)row->fn;
    if (is_pack(row)) return oc_kernels.pack[row->gguf_type] == (oc_pack_fn)row->fn;
#define OC_IS(name, type) if (strcmp(row->op, #name) == 0) return oc_kernels.name == (type)row->fn;
    OC_OPS(OC_IS)
#undef OC_IS
    return 0;
}
