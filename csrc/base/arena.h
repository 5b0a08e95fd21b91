/* arena.h - large, page-aligned, zero-filled memory straight from the system, on huge pages where it may. */
#ifndef OC_BASE_ARENA_H
#define OC_BASE_ARENA_H

#include <stddef.h>

typedef struct oc_arena {
    unsigned char *base;
    size_t size; /* bytes mapped */
    size_t used; /* bytes handed out by oc_arena_take */
} oc_arena;

#define OC_ARENA_ALIGN 64

/* Reserves `size` bytes; pages are committed when first touched. 0 on success, -1 if the system refuses. */
int oc_arena_map(oc_arena *arena, size_t size);
void oc_arena_unmap(oc_arena *arena);
/* The next `size` bytes, 64-byte aligned; NULL when the arena is used up. */
void *oc_arena_take(oc_arena *arena, size_t size);
/* Bytes that oc_arena_take(size) uses. */
size_t oc_arena_round(size_t size);
/* Commits [from, the next multiple of 2 MiB), as far as mapped, where nothing may be stored yet; returns its end. For
 * such a huge page the system takes 0.3 ms, and where a hypervisor has to find the memory first, 4. */
size_t oc_arena_commit(oc_arena *arena, size_t from);
/* Maps the pages of [data, data + size) of a file at once: one by one they cost 5 times as much. */
void oc_pages_want(const void *data, size_t size);
/* Tells the system that the file mapping [data, data + size) is read here and there: no reading ahead. */
void oc_pages_random(const void *data, size_t size);
/* Tells the system that the whole pages inside [data, data + size) of a file mapping are no longer needed. */
void oc_pages_drop(const void *data, size_t size);

#endif
