/*
 * web_sandbox.c - what the process that parses HTTP gives up: user, files, new processes, swap, and
 * nearly all system calls
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <seccomp.h>

#include "web.h"

#define DESCRIPTORS 32

static bool limit(int resource, rlim_t value)
{
    const struct rlimit both = {value, value};

    return setrlimit(resource, &both) == 0;
}

/* A folder without entries and without a name. */
static bool leave_files(int empty_folder)
{
    return fchdir(empty_folder) == 0 && chroot(".") == 0;
}

static bool leave_user(const web_setup *setup)
{
    return setgroups(0, NULL) == 0 && setresgid(setup->gid, setup->gid, setup->gid) == 0 &&
           setresuid(setup->uid, setup->uid, setup->uid) == 0;
}

/*
 * A form's password passes through buffers of libevent: none of them may be swapped out. Best
 * effort, and only while the limit can be lifted, for later allocations would fail otherwise.
 */
static void lock_memory(void)
{
    if (limit(RLIMIT_MEMLOCK, RLIM_INFINITY))
        (void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
}

bool web_sandbox(const web_setup *setup)
{
    lock_memory();
    if (setup->drop && !(leave_files(setup->empty_folder) && leave_user(setup)))
        return false;
    /* The change of user has reset these two. */
    prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return limit(RLIMIT_NOFILE, DESCRIPTORS) && limit(RLIMIT_NPROC, 0) && limit(RLIMIT_FSIZE, 0) &&
           limit(RLIMIT_CORE, 0) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Enough to serve one connection over TLS with descriptors that are open already. */
static const int allowed_calls[] = {
    SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(close), SCMP_SYS(shutdown), SCMP_SYS(fcntl),
    SCMP_SYS(fcntl64), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt), SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(recv), SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(send), SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    /* the loop */
    SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2),
    SCMP_SYS(timerfd_settime), SCMP_SYS(timerfd_settime64), SCMP_SYS(alarm), SCMP_SYS(setitimer),
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_gettime64), SCMP_SYS(gettimeofday), SCMP_SYS(time),
    /* memory, locks, random numbers */
    SCMP_SYS(brk), SCMP_SYS(mremap), SCMP_SYS(munmap), SCMP_SYS(madvise), SCMP_SYS(mlock),
    SCMP_SYS(munlock), SCMP_SYS(futex), SCMP_SYS(futex_time64), SCMP_SYS(getrandom),
    SCMP_SYS(getpid), SCMP_SYS(gettid),
    /* signals and the end */
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigreturn),
    SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group)};

/* Memory, but none that can be run. */
static bool allow_memory(scmp_filter_ctx filter, int call)
{
    const struct scmp_arg_cmp not_exec = {
        .arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0};

    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &not_exec) == 0;
}

static bool allow_all(scmp_filter_ctx filter)
{
    const struct scmp_arg_cmp how_much_is_there = {
        .arg = 1, .op = SCMP_CMP_EQ, .datum_a = FIONREAD};

    for (size_t i = 0; i < sizeof(allowed_calls) / sizeof(*allowed_calls); i++)
        if (seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0) != 0)
            return false;
    return allow_memory(filter, SCMP_SYS(mmap)) && allow_memory(filter, SCMP_SYS(mmap2)) &&
           allow_memory(filter, SCMP_SYS(mprotect)) &&
           seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, &how_much_is_there) ==
               0;
}

/* Libraries take ENOSYS for an older kernel, and do what they want in another way or not at all. */
bool web_filter_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    bool ok = filter != NULL && allow_all(filter) && seccomp_load(filter) == 0;

    seccomp_release(filter);
    return ok;
}
