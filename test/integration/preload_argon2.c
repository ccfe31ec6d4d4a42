/*
 * preload_argon2.c - counts the runs of Argon2 that a program makes (LD_PRELOAD)
 *
 * Each run adds a byte to the file that ARGON2_RUNS names.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <argon2.h>

int argon2_ctx(argon2_context *context, argon2_type type)
{
    int (*real)(argon2_context *, argon2_type) =
        (int (*)(argon2_context *, argon2_type))dlsym(RTLD_NEXT, "argon2_ctx");
    const char *path = getenv("ARGON2_RUNS");
    int fd = path == NULL ? -1 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, ".", 1) != 1 || close(fd) != 0)
        abort();
    return real(context, type);
}
