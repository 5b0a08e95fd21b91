/* target_end.h - include last in a file that began with target_*.h: clang wants the attribute taken back. */
#if defined(__clang__)
#pragma clang attribute pop
#endif
