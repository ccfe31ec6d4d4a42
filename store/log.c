/* log.c - the directive `log`: who loaded which key, changes, refusals; never a secret */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "keystore_internal.h"
#include "text.h"

/* A name of 255 bytes, each as \xNN, and the end. */
#define NAME_QUOTED_SIZE (4 * 255 + 1)

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* One write(2) a line, so that lines of several processes never mix. */
static void to_file(const char *path, const char *line, size_t size)
{
    __attribute__((cleanup(close_fd))) int fd =
        open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0640);

    if (fd >= 0 && write(fd, line, size) < 0)
        return; /* nowhere left to say it; logging never fails a caller */
}

void tpks_log(const TPKS *ks, const char *event, const char *record_name, tpks_result result)
{
    const char *log = keystore_setting(ks, "log");
    char line[4096], name[NAME_QUOTED_SIZE], section[NAME_QUOTED_SIZE], stamp[32];
    struct tm now_utc;
    time_t now = time(NULL);
    int saved = errno;

    if (log == NULL || strcmp(log, "no") == 0)
        return;
    text_quote(record_name, name, sizeof(name));
    text_quote(ks->section, section, sizeof(section));
    gmtime_r(&now, &now_utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &now_utc);
    int size = snprintf(line, sizeof(line),
                        "%s trustpoint[%ld]: uid=%ld event=%s result=%s%s%s record=\"%s\"\n", stamp,
                        (long)getpid(), (long)getuid(), event, tpks_result_name(result),
                        *section == '\0' ? "" : " keystore=", section, name);
    if (strcmp(log, "syslog") == 0)
        syslog(LOG_AUTHPRIV | LOG_INFO, "%.*s", size - (int)strlen(stamp) - 2,
               line + strlen(stamp) + 1);
    else
        to_file(log + strlen("file:"), line, (size_t)size);
    errno = saved;
}
