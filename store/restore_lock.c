/* restore_lock.c - one process at a time restores a keystore on this host */
#include "restore_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

#define STEP_MS 50
#define HOST_SIZE 65 /* HOST_NAME_MAX and the end */
#define LINE_SIZE 128

/* ---- who has it ---- */

/* Best effort: who could open the file for reading only leaves no name. */
static void write_holder(int fd)
{
    char host[HOST_SIZE] = "", line[LINE_SIZE];

    gethostname(host, sizeof(host) - 1);
    int size = snprintf(line, sizeof(line), "%ld %s %.32s\n", (long)getpid(),
                        *host == '\0' ? "?" : host, program_invocation_short_name);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, line, (size_t)size, 0) != size)
        return;
}

static bool is_alive(long pid, const char *host)
{
    char here[HOST_SIZE] = "";

    gethostname(here, sizeof(here) - 1);
    return strcmp(host, here) != 0 || kill((pid_t)pid, 0) == 0 || errno == EPERM;
}

/* "process 1234 (nginx on host web1)", or "another process" when that is not known. */
static void read_holder(int fd, char *out, size_t size)
{
    char line[LINE_SIZE] = "", host[HOST_SIZE], program[33];
    long pid = 0;

    snprintf(out, size, "another process");
    if (pread(fd, line, sizeof(line) - 1, 0) <= 0 ||
        sscanf(line, "%ld %64s %32[^\n]", &pid, host, program) != 3 || pid <= 0 ||
        !is_alive(pid, host))
        return;
    snprintf(out, size, "process %ld (%s on host %s)", pid, program, host);
}

/* ---- the lock ---- */

/* Where somebody else's file may not be made anew, or not be written, it can still be locked. */
static int open_lock(const TPKS *ks)
{
    char path[PATH_SIZE + 64], folder[PATH_SIZE], id[2 * TPKS_ID_SIZE + 1];
    static const int ways[] = {O_RDWR | O_CREAT, O_RDWR, O_RDONLY};
    int fd = -1;

    hex_text(ks->head.keystore, TPKS_ID_SIZE, id);
    snprintf(path, sizeof(path), "%s/%s.restore", keystore_lock_dir(ks, folder), id);
    for (size_t i = 0; fd < 0 && i < sizeof(ways) / sizeof(*ways); i++)
        fd = open(path, ways[i] | O_NOFOLLOW | O_CLOEXEC, 0660);
    return fd;
}

static void pause_step(void)
{
    struct timespec left = {0, STEP_MS * 1000000L};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

/* The file is another process's: it is closed here, for releasing it would wipe that one's name. */
static void leave_lock(int *fd)
{
    close(*fd);
    *fd = -1;
}

static tpks_result busy(int *fd)
{
    char holder[160];

    read_holder(*fd, holder, sizeof(holder));
    leave_lock(fd);
    return fail(TPKS_RESTORE_PENDING,
                "%s is restoring the KEK and waits for the backup password: answer it there, or "
                "end that process and run trustpoint-keystore restore",
                holder);
}

tpks_result restore_lock_take(const TPKS *ks, long seconds, int *fd)
{
    *fd = open_lock(ks);
    if (*fd < 0)
        return TPKS_OK;
    for (long waited = 0; flock(*fd, LOCK_EX | LOCK_NB) != 0; waited += STEP_MS) {
        if (errno != EWOULDBLOCK) {
            leave_lock(fd);
            return TPKS_OK;
        }
        if (waited >= seconds * 1000)
            return busy(fd);
        pause_step();
    }
    write_holder(*fd);
    return TPKS_OK;
}

void restore_lock_release(int *fd)
{
    /* A name that stays says nothing false: it is read only while somebody holds the lock, who then
     * writes his own if he can. */
    if (*fd >= 0 && ftruncate(*fd, 0) != 0)
        errno = 0;
    if (*fd >= 0)
        close(*fd); /* ends the flock(2) with it */
    *fd = -1;
}
