/* arena.c - memory for weights, KV blocks and scratch. First touch is 5 times faster on huge pages (docs/kernels.md). */
#include "base/arena.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

/* Linux 5.14; older kernels refuse it, and the pages come one by one. */
#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22
#endif

#define PAGE ((size_t)4096)
#define HUGE_PAGE ((size_t)2 << 20)

size_t oc_arena_round(size_t size) { return (size + OC_ARENA_ALIGN - 1) / OC_ARENA_ALIGN * OC_ARENA_ALIGN; }

int oc_arena_map(oc_arena *arena, size_t size) {
    memset(arena, 0, sizeof *arena);
    if (size == 0) size = 1;
    if (size > SIZE_MAX - HUGE_PAGE) return -1;
    size_t page = size >= HUGE_PAGE ? HUGE_PAGE : PAGE;
    size = (size + page - 1) / page * page;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return -1;
#ifdef MADV_HUGEPAGE
    if (page == HUGE_PAGE) madvise(base, size, MADV_HUGEPAGE);
#endif
    arena->base = base;
    arena->size = size;
    return 0;
}

void oc_arena_unmap(oc_arena *arena) {
    if (arena->base) munmap(arena->base, arena->size);
    memset(arena, 0, sizeof *arena);
}

void *oc_arena_take(oc_arena *arena, size_t size) {
    size_t rounded = oc_arena_round(size);
    if (rounded < size || rounded > arena->size - arena->used) return NULL;
    void *taken = arena->base + arena->used;
    arena->used += rounded;
    return taken;
}

size_t oc_arena_commit(oc_arena *arena, size_t from) {
    size_t end = (from / HUGE_PAGE + 1) * HUGE_PAGE;
    if (end > arena->size) end = arena->size;
    volatile unsigned char *base = arena->base;
    for (size_t at = (from + PAGE - 1) / PAGE * PAGE; at < end; at += PAGE) base[at] = 0;
    return end;
}

void oc_pages_want(const void *data, size_t size) {
    uintptr_t first = (uintptr_t)data / PAGE * PAGE, last = (uintptr_t)data + size;
#ifdef MADV_POPULATE_READ
    if (madvise((void *)first, last - first, MADV_POPULATE_READ) == 0) return;
#endif
    madvise((void *)first, last - first, MADV_WILLNEED);
}

/* Advice about the whole pages inside [data, data + size). */
static void advise_inside(const void *data, size_t size, int advice) {
    uintptr_t first = ((uintptr_t)data + PAGE - 1) / PAGE * PAGE, last = ((uintptr_t)data + size) / PAGE * PAGE;
    if (last > first) madvise((void *)first, last - first, advice);
}

void oc_pages_random(const void *data, size_t size) { advise_inside(data, size, MADV_RANDOM); }

void oc_pages_drop(const void *data, size_t size) { advise_inside(data, size, MADV_DONTNEED); }
