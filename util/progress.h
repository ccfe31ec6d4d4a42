/*
 * progress.h - a line on stderr that says how far long work is
 */
#ifndef TRUSTPOINT_UTIL_PROGRESS_H
#define TRUSTPOINT_UTIL_PROGRESS_H

#include <time.h>

#include "command.h"

typedef struct progress {
    struct timespec started;
    bool visible; /* stderr is a terminal */
    bool shown;
} progress;

void progress_start(progress *p);
/* Redraws the line when the work has taken over a second. */
void progress_show(progress *p, uint64_t done, uint64_t total);
/* Removes the line; other text may follow. */
void progress_clear(progress *p);

#endif
