/*
 * notify.c - telling systemd how it goes: the datagrams of sd_notify(3)
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

static void send_text(const char *path, const char *text, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    int fd;

    if ((*path != '/' && *path != '@') || length >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, length);
    if (*path == '@') /* the abstract namespace */
        address.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    close(fd);
}

/* A line end would start another assignment. */
static void one_line(char *text)
{
    for (; *text != '\0'; text++)
        if (*text == '\n' || *text == '\r')
            *text = ' ';
}

void notify_status(bool ready, unsigned extend, const char *text)
{
    const char *path = secure_getenv("NOTIFY_SOCKET");
    char line[1200], message[1400], more[64] = "";

    if (path == NULL)
        return;
    snprintf(line, sizeof(line), "%s", text);
    one_line(line);
    if (extend > 0)
        snprintf(more, sizeof(more), "EXTEND_TIMEOUT_USEC=%u000000\n", extend);
    int size =
        snprintf(message, sizeof(message), "%s%sSTATUS=%s\n", ready ? "READY=1\n" : "", more, line);

    send_text(path, message, (size_t)size);
}
