/*
 * memory_limit.c - how much memory this process can have at most
 */
#include "memory_limit.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define VERSION_2_FOLDER "/sys/fs/cgroup"
#define VERSION_1_FOLDER "/sys/fs/cgroup/memory"

static void close_file(FILE **file)
{
    if (*file != NULL)
        (void)fclose(*file);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The number in a file; UINT64_MAX for "max", and for a file that isn't there. */
static uint64_t read_number(const char *folder, const char *group, const char *name)
{
    char path[PATH_MAX];
    uint64_t number;

    if (snprintf(path, sizeof(path), "%s%s/%s", folder, group, name) >= (int)sizeof(path))
        return UINT64_MAX;
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "re");
    return file != NULL && fscanf(file, "%" SCNu64, &number) == 1 ? number : UINT64_MAX;
}

/*
 * The limits of a cgroup and of all above it. In a container the path may be the host's, of which
 * only the top is mounted: the way up ends there too.
 */
static uint64_t limit_upwards(const char *folder, char *group, const char *name)
{
    uint64_t limit = UINT64_MAX;

    for (;;) {
        char *slash = strrchr(group, '/');

        limit = least(limit, read_number(folder, group, name));
        if (slash == NULL)
            return limit;
        *slash = '\0';
    }
}

/* One line of /proc/self/cgroup, "number:controllers:/path"; version 2 has "0::/path". */
static uint64_t limit_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    char folder[PATH_MAX];
    bool version_2;

    if (group == NULL)
        return UINT64_MAX;
    *controllers++ = '\0';
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    version_2 = *controllers == '\0';
    if (!version_2 && strcmp(controllers, "memory") != 0)
        return UINT64_MAX;
    if (snprintf(folder, sizeof(folder), "%s%s", root,
                 version_2 ? VERSION_2_FOLDER : VERSION_1_FOLDER) >= (int)sizeof(folder))
        return UINT64_MAX;
    return limit_upwards(folder, group, version_2 ? "memory.max" : "memory.limit_in_bytes");
}

static uint64_t cgroup_limit(const char *root)
{
    char path[PATH_MAX], line[PATH_MAX];
    uint64_t limit = UINT64_MAX;

    if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) >= (int)sizeof(path))
        return limit;
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        limit = least(limit, limit_of_line(root, line));
    return limit;
}

uint64_t memory_limit(const char *root)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long page = sysconf(_SC_PAGESIZE);
    uint64_t ram = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;

    return least(ram, cgroup_limit(root));
}
