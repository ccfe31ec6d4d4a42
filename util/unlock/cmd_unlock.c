/*
 * cmd_unlock.c - trustpoint-keystore unlock: hands the backup password to the waiting service
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"
#include "secrets.h"
#include "service.h"
#include "socket_path.h"

/* The answer is "CODE TEXT\n"; a service that ended without one has not said what became of it. */
static int print_answer(int fd)
{
    char line[ANSWER_MAX + 1], *text;
    ssize_t size;
    long code;

    do
        size = recv(fd, line, sizeof(line) - 1, 0);
    while (size < 0 && errno == EINTR);
    if (size <= 0)
        return complain(EX_TEMPFAIL, "the service ended without an answer; see its log");
    line[size] = '\0';
    line[strcspn(line, "\n")] = '\0';
    code = strtol(line, &text, 10);
    if (text == line || *text != ' ' || code < 0 || code > 255)
        return complain(EX_SOFTWARE, "the service gave an answer that is not understood");
    return complain((int)code, "%s", text + 1);
}

static int hand_over(int fd, const TPKS_SECRET *secret)
{
    if (send(fd, tpks_secret_data_const(secret), tpks_secret_size(secret), MSG_NOSIGNAL) < 0 &&
        errno != EPIPE) /* turned away before it was sent: the answer says why */
        return complain(EX_TEMPFAIL, "cannot send to the service: %s", strerror(errno));
    return print_answer(fd);
}

static int connect_to_service(const char *path, int *fd)
{
    *fd = socket_connect(path, SOCK_SEQPACKET);
    if (*fd >= 0)
        return EX_OK;
    if (errno == ENOENT || errno == ECONNREFUSED)
        return complain(EX_UNAVAILABLE,
                        "no service waits for a password at %s: nothing is to be restored, or "
                        "trustpoint-unlock.service does not run; see trustpoint-keystore status",
                        path);
    return complain_file("cannot reach the service at", path);
}

int command_unlock(APP *app, int argc, char **argv)
{
    AUTO(secret) TPKS_SECRET *secret = NULL;
    const char *path = UNLOCK_SOCKET;
    const option_spec specs[] = {
        {"socket", OPTION_TEXT, &path, "PATH",
         "where the service waits (default " UNLOCK_SOCKET ")"},
        {NULL, OPTION_FLAG, NULL, NULL, NULL},
    };
    const command_usage usage = {
        "unlock", "", "Hands the backup password to the waiting unlock service.", specs, 0, 0};
    char **arguments;
    int count, fd, code;

    DO(options_parse(app, &usage, argc, argv, &arguments, &count));
    DO(connect_to_service(path, &fd)); /* before a human types for nobody */
    close(fd);
    DO(secrets_given(app) ? secrets_read_given(app, &secret)
                          : secrets_prompt("Backup password: ", &secret));
    DO(connect_to_service(path, &fd));
    code = hand_over(fd, secret);
    close(fd);
    return code;
}
