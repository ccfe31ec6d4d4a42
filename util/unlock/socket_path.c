/*
 * socket_path.c - unix sockets by path: the waiting service's and the page's
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "socket_path.h"

#define BACKLOG 64

void socket_make_folder(const char *path)
{
    if (strncmp(path, RUN_FOLDER "/", sizeof(RUN_FOLDER)) == 0)
        (void)mkdir(RUN_FOLDER, 0755); /* what comes next says what is wrong */
}

/* Two processes that replaced a stale socket at the same time would take it from each other. */
int socket_reserve(const char *path, int *lock)
{
    char name[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock")];
    int code;

    socket_make_folder(path);
    if (snprintf(name, sizeof(name), "%s.lock", path) >= (int)sizeof(name)) {
        errno = ENAMETOOLONG;
        return complain_file("cannot make the socket", path);
    }
    *lock = open(name, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (*lock < 0)
        return complain_file("cannot make", name);
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0)
        return EX_OK;
    code = errno == EWOULDBLOCK ? EX_CANTCREAT : complain_file("cannot lock", name);
    close(*lock);
    *lock = -1;
    return code;
}

int socket_taken(const char *path)
{
    return complain(EX_CANTCREAT, "another process listens on %s already: answer there, or end it",
                    path);
}

static bool fill_address(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(address->sun_path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address->sun_path, path, strlen(path));
    return true;
}

int socket_connect(const char *path, int type)
{
    struct sockaddr_un address;
    int fd;

    if (!fill_address(path, &address))
        return -1;
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int number = errno;

        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

/* Removes a socket that a killed process left; nothing else. */
static bool remove_stale(const char *path, int type)
{
    struct stat st;
    int fd;

    if (lstat(path, &st) != 0)
        return errno == ENOENT;
    errno = EEXIST;
    if (!S_ISSOCK(st.st_mode))
        return false;
    fd = socket_connect(path, type);
    if (fd >= 0) {
        close(fd);
        errno = EADDRINUSE;
        return false;
    }
    return errno == ECONNREFUSED && unlink(path) == 0;
}

/* The umask makes it private from the first moment. */
static bool bind_private(int fd, const char *path, gid_t group)
{
    struct sockaddr_un address;
    mode_t before = umask(0177);
    bool bound =
        fill_address(path, &address) && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    umask(before);
    if (bound && group != NO_GROUP)
        bound = chown(path, (uid_t)-1, group) == 0 && chmod(path, 0660) == 0;
    return bound;
}

int socket_listen(const char *path, int type, gid_t group, int *fd)
{
    int code;

    if (!remove_stale(path, type))
        return errno == EADDRINUSE ? socket_taken(path)
                                   : complain_file("cannot make the socket", path);
    *fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && bind_private(*fd, path, group) && listen(*fd, BACKLOG) == 0)
        return EX_OK;
    code = complain_file("cannot listen on", path);
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return code;
}
