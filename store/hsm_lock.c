/*
 * hsm_lock.c - the host-wide lock around logins, blocked signals, and random pauses
 */
#include "hsm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

void mutex_unlock(pthread_mutex_t **mutex)
{
    pthread_mutex_unlock(*mutex);
}

void signals_block(sigset_t *old)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t all;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_BLOCK, &all, old);
}

void signals_restore(sigset_t *old)
{
    pthread_sigmask(SIG_SETMASK, old, NULL);
}

struct timespec deadline_in(int seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    now.tv_sec += seconds;
    return now;
}

bool deadline_passed(const struct timespec *deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > deadline->tv_sec ||
           (now.tv_sec == deadline->tv_sec && now.tv_nsec >= deadline->tv_nsec);
}

void pause_jittered(unsigned attempt)
{
    unsigned long base = 2000000UL << (attempt < 7 ? attempt : 7);
    unsigned random = 0;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        random = (unsigned)getpid();
    struct timespec wait = {0, (long)(base / 2 + random % base)};
    while (nanosleep(&wait, &wait) == -1 && errno == EINTR)
        ;
}

/* Reading is enough for flock(2), so whoever may read the file takes part. */
static int open_lock_file(const char *path)
{
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
    int fd = open(path, flags);
    if (fd != -1 || errno != ENOENT)
        return fd;
    fd = open(path, flags | O_CREAT, 0660);
    if (fd != -1)
        (void)!fchmod(fd,
                      0660); /* whatever the umask is: the group of the state folder takes part */
    return fd;
}

static bool lock_in_time(int fd, const struct timespec *deadline)
{
    for (unsigned attempt = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; attempt++) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || deadline_passed(deadline))
            return false;
        pause_jittered(attempt < 3 ? attempt : 3);
    }
    return true;
}

int host_lock_take(const char *lock_dir, const char *name, const struct timespec *deadline)
{
    char path[PATH_MAX];
    if (lock_dir == NULL ||
        snprintf(path, sizeof(path), "%s/%s", lock_dir, name) >= (int)sizeof(path))
        return -1;
    int fd = open_lock_file(path);
    if (fd != -1 && !lock_in_time(fd, deadline)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void host_lock_drop(int *fd)
{
    if (*fd == -1)
        return;
    flock(*fd, LOCK_UN); /* a child forked meanwhile shares the lock: closing would not be enough */
    close(*fd);
    *fd = -1;
}
