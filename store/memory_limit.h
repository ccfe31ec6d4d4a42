/*
 * memory_limit.h - how much memory this process can have at most
 */
#ifndef TRUSTPOINT_MEMORY_LIMIT_H
#define TRUSTPOINT_MEMORY_LIMIT_H

#include <stdint.h>

/*
 * Bytes: the smallest of the machine's RAM and the memory limits of this process's cgroup and those
 * above it (cgroup v2 memory.max, v1 memory.limit_in_bytes: cgroups(7)). `root` is "" for this
 * machine; tests give a folder with a proc/ and a sys/ of their own. Never fails: what can't be
 * read limits nothing.
 */
uint64_t memory_limit(const char *root);

#endif
