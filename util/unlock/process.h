/*
 * process.h - child processes that do one thing for a waiting parent
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_PROCESS_H
#define TRUSTPOINT_UTIL_UNLOCK_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/*
 * fork(2) for a parent that runs an event loop: the child starts with default signal handlers (the
 * parent's would write into the parent's loop) and gets SIGTERM when its parent ends.
 */
pid_t process_fork(void);
/* Closes every descriptor from 3 on but the two given ones (-1: none). */
void process_keep_only(int one, int other);
/* Waits for a child that is ending; true when it ended with exit code 0. */
bool process_reap(pid_t pid);
/* Tells a child to end, as often as it takes, and waits for it; kills it after three seconds. */
void process_end(pid_t pid);

#endif
