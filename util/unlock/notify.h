/*
 * notify.h - telling systemd how it goes: the datagrams of sd_notify(3)
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_NOTIFY_H
#define TRUSTPOINT_UTIL_UNLOCK_NOTIFY_H

#include <stdbool.h>

/*
 * Sends a STATUS= line, READY=1 with `ready`, and asks for `extend` more seconds of a finite start
 * time (0: none). Does nothing when $NOTIFY_SOCKET is not set; failures are ignored, as
 * sd_notify(3) recommends.
 */
void notify_status(bool ready, unsigned extend, const char *text);

#endif
