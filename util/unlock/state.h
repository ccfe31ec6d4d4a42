/*
 * state.h - what the unlock service knows and tells: state file, health, status line
 */
#ifndef TRUSTPOINT_UTIL_UNLOCK_STATE_H
#define TRUSTPOINT_UTIL_UNLOCK_STATE_H

#include <time.h>

#include "output.h"
#include "work.h"

#define RUN_FOLDER "/run/trustpoint"
#define HOW_MAX 4

typedef struct unlock_state {
    tpks_result result; /* of the last look */
    time_t since;       /* when it became this result */
    char text[REPORT_TEXT];
    char token[64];
    const char *how[HOW_MAX + 1]; /* what to type; ends with NULL */
} unlock_state;

/* Can a password help: is the KEK missing, foreign, or somebody at it already? */
bool state_is_pending(tpks_result result);
/* Might it pass by itself: token, HSM or database not there (yet)? */
bool state_may_pass(tpks_result result);
/* "unlocked", "restore-pending", else the result's name. */
const char *state_word(tpks_result result);
/* Takes a report over; true when the result is another one than before. */
bool state_take(unlock_state *state, const work_report *report);
/* {"v":1, "state", "since", "reason", "text", "token", "how"}: no secret, no key name. */
struct json_object *state_json(const unlock_state *state);
/* /run/trustpoint/XXXXXXXX.state, with the first 4 bytes of the keystore's id. */
void state_default_path(const unsigned char id[TPKS_ID_SIZE], char *path, size_t size);
/* Replaces the file (0644) in one step; makes /run/trustpoint if need be. Errors are said. */
int state_write(const unlock_state *state, const char *path);

#endif
