/*
 * work.h - work with HSM and database in a child process, so that a hang of either is bounded
 *
 * The parent never enters a PKCS#11 module: it runs an event loop, and one child at a time opens
 * the keystore, does what it is told and sends a report.
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_WORK_H
#define TRUSTPOINT_UTIL_UNLOCK_WORK_H

#include <event2/event.h>

#include "command.h"

#define REPORT_TEXT 1024

typedef struct work_order {
    bool restore;              /* false: only try to unlock with what this machine has */
    const TPKS_SECRET *secret; /* of a restore: the password or recovery key */
    unsigned long limit;       /* seconds until the child is ended */
} work_order;

typedef struct work_report {
    tpks_result result;
    tpks_result found; /* of a restore: what was wrong before, TPKS_OK when nothing was */
    bool restored;
    bool has_id; /* the database could be opened: the next three are set */
    unsigned char id[TPKS_ID_SIZE];
    char label[256];
    char token[64];         /* "label/serial" of an active HSM slot; "" if none */
    char text[REPORT_TEXT]; /* the error's text; "" with TPKS_OK */
} work_report;

typedef struct work WORK;
/* Called once, from the event loop; the WORK is freed before. */
typedef void work_done_fn(void *arg, const work_report *report);

/*
 * Starts the child. The secret is used by the child only, so the caller may wipe its own as soon
 * as this returns. NULL: no child could be started, and that was said on stderr. A child that
 * does not answer in time is a report with TPKS_HSM_UNAVAILABLE.
 */
WORK *work_start(struct event_base *base, APP *app, const work_order *order, work_done_fn *done,
                 void *arg);
/* Ends the child without a report. NULL is ignored. */
void work_stop(WORK *work);

#endif
