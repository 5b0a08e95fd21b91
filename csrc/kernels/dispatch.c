/* dispatch.c - fills oc_kernels from kernels.def: generic rows first, better ones over them as far as the CPU goes. */
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

void oc_kernels_init(void) {
    oc_kernel_table table;
    memset(&table, 0, sizeof table);
    for (int i = 0; i < oc_kernel_count(); i++) {
        const oc_kernel *row = &rows[i];
        if (!oc_cpu_has(row->isa)) continue;
        if (strcmp(row->op, "matmul") == 0) table.matmul[row->gguf_type] = (oc_matmul_fn)row->fn;
        else if (strcmp(row->op, "pack") == 0) table.pack[row->gguf_type] = (oc_pack_fn)row->fn;
#define OC_SET(name, type) else if (strcmp(row->op, #name) == 0) table.name = (type)row->fn;
        OC_OPS(OC_SET)
#undef OC_SET
    }
    oc_kernels = table;
}
