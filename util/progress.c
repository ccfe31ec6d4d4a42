/*
 * progress.c - a line on stderr that says how far long work is
 */
#include <stdio.h>
#include <unistd.h>

#include "progress.h"

void progress_start(progress *p)
{
    *p = (progress){.visible = isatty(STDERR_FILENO) != 0};
    clock_gettime(CLOCK_MONOTONIC, &p->started);
}

static bool over_a_second(const progress *p)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec - p->started.tv_sec > (now.tv_nsec < p->started.tv_nsec ? 1 : 0);
}

void progress_show(progress *p, uint64_t done, uint64_t total)
{
    if (!p->visible || !over_a_second(p))
        return;
    fprintf(stderr, "\r%llu of %llu\033[K", (unsigned long long)done, (unsigned long long)total);
    p->shown = true;
}

void progress_clear(progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
