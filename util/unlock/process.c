/*
 * process.c - child processes that do one thing for a waiting parent
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "process.h"

#define END_TRIES 60 /* three seconds */

static void default_signals(void)
{
    static const int used[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGCHLD, SIGALRM};

    for (size_t i = 0; i < sizeof(used) / sizeof(*used); i++)
        signal(used[i], SIG_DFL);
}

pid_t process_fork(void)
{
    sigset_t all, before;
    pid_t parent = getpid();
    pid_t pid;

    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = fork();
    if (pid == 0) {
        default_signals();
        prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
        if (getppid() != parent) /* it ended before it could be noticed */
            _exit(1);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void close_between(int first, int last)
{
    if (first <= last)
        close_range((unsigned)first, (unsigned)last, 0);
}

void process_keep_only(int one, int other)
{
    int low = one < other ? one : other;
    int high = one < other ? other : one;

    low = low < 3 ? 2 : low;
    high = high < 3 ? 2 : high;
    close_between(3, low - 1);
    close_between(low + 1 < 3 ? 3 : low + 1, high - 1);
    close_range((unsigned)high + 1, ~0U, 0);
}

/* Once may not be enough: a signal that comes just before a read does not end the read. */
void process_end(pid_t pid)
{
    const struct timespec a_while = {.tv_nsec = 50000000};

    for (int i = 0; waitpid(pid, NULL, WNOHANG) == 0; i++) {
        kill(pid, i < END_TRIES ? SIGTERM : SIGKILL);
        kill(pid, SIGCONT); /* a stopped one would never see it */
        nanosleep(&a_while, NULL);
    }
}

bool process_reap(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
