/*
 * socket_path.h - unix sockets by path: the waiting service's and the page's
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_SOCKET_PATH_H
#define TRUSTPOINT_UTIL_UNLOCK_SOCKET_PATH_H

#include <sys/types.h>

#include "state.h"

#define UNLOCK_SOCKET RUN_FOLDER "/unlock.sock"
#define NO_GROUP ((gid_t)-1)

/* Makes /run/trustpoint (0755) if `path` lies in it and it is missing. */
void socket_make_folder(const char *path);
/*
 * Takes the right to listen on `path`: a lock on the file PATH.lock, which stays, held until *lock
 * is closed. EX_CANTCREAT, which is not said: another process has it. Other errors are said.
 */
int socket_reserve(const char *path, int *lock);
/* Says so; EX_CANTCREAT. */
int socket_taken(const char *path);
/*
 * Listens on `path`, mode 0600, or 0660 with `group`; the caller has reserved it. A socket that
 * nobody listens on any more is replaced; one that somebody does is EX_CANTCREAT. `type` is that of
 * socket(2). Errors are said.
 */
int socket_listen(const char *path, int type, gid_t group, int *fd);
/* Connects, blocking. -1 and errno on failure. */
int socket_connect(const char *path, int type);

#endif
