/*
 * state.c - what the unlock service knows and tells: state file, health, status line
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "socket_path.h"
#include "state.h"

bool state_is_pending(tpks_result result)
{
    return result == TPKS_KEK_MISSING || result == TPKS_KEK_FOREIGN ||
           result == TPKS_RESTORE_PENDING || result == TPKS_CONFLICT;
}

bool state_may_pass(tpks_result result)
{
    return result == TPKS_TOKEN_MISSING || result == TPKS_HSM_UNAVAILABLE ||
           result == TPKS_DATABASE_UNAVAILABLE;
}

const char *state_word(tpks_result result)
{
    if (result == TPKS_OK)
        return "unlocked";
    return state_is_pending(result) ? "restore-pending" : tpks_result_name(result);
}

bool state_take(unlock_state *state, const work_report *report)
{
    bool changed = state->since == 0 || state->result != report->result;

    if (changed)
        state->since = time(NULL);
    state->result = report->result;
    memcpy(state->text, report->text, sizeof(state->text));
    if (report->has_id)
        memcpy(state->token, report->token, sizeof(state->token));
    return changed;
}

struct json_object *state_json(const unlock_state *state)
{
    struct json_object *object = json_object_new_object();
    struct json_object *how = json_object_new_array();

    for (size_t i = 0; state->how[i] != NULL && state_is_pending(state->result); i++)
        json_object_array_add(how, json_object_new_string(state->how[i]));
    json_add_number(object, "v", 1);
    json_add_text(object, "state", state_word(state->result));
    json_add_time(object, "since", state->since);
    json_add_text(object, "reason",
                  state->result != TPKS_OK ? tpks_result_name(state->result) : NULL);
    json_add_text(object, "text", *state->text != '\0' ? state->text : NULL);
    json_add_text(object, "token", *state->token != '\0' ? state->token : NULL);
    json_object_object_add(object, "how", how);
    return object;
}

void state_default_path(const unsigned char id[TPKS_ID_SIZE], char *path, size_t size)
{
    char text[2 * TPKS_ID_SIZE + 1];

    snprintf(path, size, RUN_FOLDER "/%.8s.state", hex_text(id, TPKS_ID_SIZE, text));
}

static bool write_text(int fd, const char *text)
{
    FILE *stream = fdopen(fd, "w");
    bool written;

    if (stream == NULL) {
        close(fd);
        return false;
    }
    written = fputs(text, stream) >= 0 && fputc('\n', stream) != EOF && fchmod(fd, 0644) == 0;
    return fclose(stream) == 0 && written;
}

static bool replace(const char *path, const char *text)
{
    char fresh[512];
    int fd;

    if (snprintf(fresh, sizeof(fresh), "%s.XXXXXX", path) >= (int)sizeof(fresh)) {
        errno = ENAMETOOLONG;
        return false;
    }
    fd = mkstemp(fresh);
    if (fd < 0)
        return false;
    if (write_text(fd, text) && rename(fresh, path) == 0)
        return true;
    unlink(fresh);
    return false;
}

int state_write(const unlock_state *state, const char *path)
{
    struct json_object *object = state_json(state);
    const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_NOSLASHESCAPE);
    int code = EX_OK;

    socket_make_folder(path);
    if (text == NULL || !replace(path, text))
        code = complain_file("cannot write the state file", path);
    json_object_put(object);
    return code;
}
