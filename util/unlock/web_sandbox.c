/*
 * web_sandbox.c - what the process that parses HTTP gives up: user, files, new processes, swap
 */
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

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
