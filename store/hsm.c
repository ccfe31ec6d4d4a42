/*
 * hsm.c - HSM handles: open, close, and the keepers of this process
 */
#include "hsm_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- keepers (hsm-session = process) -----------------------------------------------------------
 */

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static struct hsm_connection *keeper_find(struct hsm_process *process, const hsm_options *options)
{
    struct hsm_connection *keeper = process->keepers;
    while (keeper != NULL && (!same_text(keeper->uri_text, options->token_uri) ||
                              !same_text(keeper->lock_dir, options->lock_dir)))
        keeper = keeper->next;
    return keeper;
}

static struct hsm_connection *keeper_get(struct hsm_process *process, const hsm_options *options)
{
    HOLD(&process->mutex);
    return keeper_find(process, options);
}

/* Adds `fresh`, unless another thread was quicker; gives the one that is to be used. */
static struct hsm_connection *keeper_add(struct hsm_process *process, const hsm_options *options,
                                         struct hsm_connection *fresh)
{
    HOLD(&process->mutex);
    struct hsm_connection *keeper = keeper_find(process, options);
    if (keeper != NULL)
        return keeper;
    fresh->next = process->keepers;
    process->keepers = fresh;
    return fresh;
}

tpks_result keeper_join(struct hsm_process *process, const hsm_options *options,
                        struct hsm_connection **out)
{
    struct hsm_connection *fresh = NULL;
    *out = keeper_get(process, options);
    if (*out != NULL)
        return TPKS_OK;
    TRY(connection_new(process, options, &fresh));
    *out = keeper_add(process, options, fresh);
    if (*out != fresh)
        connection_free(fresh);
    return TPKS_OK;
}

/* ---- handles ------------------------------------------------------------------------------------
 */

static void take_names(HSM *hsm)
{
    struct hsm_connection *connection = hsm->connection;
    HOLD(&connection->mutex);
    memcpy(hsm->label, connection->label, sizeof(hsm->label));
    memcpy(hsm->serial, connection->serial, sizeof(hsm->serial));
}

static void handle_free(HSM *hsm)
{
    if (hsm->connection != NULL && !hsm->connection->shared)
        connection_free(hsm->connection);
    free(hsm->keystore_label);
    free(hsm);
}

static tpks_result handle_fill(HSM *hsm, const hsm_options *options)
{
    const char *label = options->keystore_label != NULL ? options->keystore_label : "";
    hsm->keystore_label = strdup(label);
    if (hsm->keystore_label == NULL)
        return fail_memory();
    hsm->caller = (struct hsm_caller){options->ask, options->ask_arg, hsm->keystore_label};
    if (options->keep && !options->write)
        TRY(keeper_join(hsm->process, options, &hsm->connection));
    else
        TRY(connection_new(hsm->process, options, &hsm->connection));
    TRY(connection_open(hsm->connection, &hsm->caller));
    take_names(hsm);
    return TPKS_OK;
}

tpks_result hsm_open(const hsm_options *options, HSM **out)
{
    HSM_GUARD guard;
    TRY(hsm_enter(&guard, NULL));
    HSM *hsm = calloc(1, sizeof(*hsm));
    if (hsm == NULL)
        return fail_memory();
    hsm->process = guard.process;
    tpks_result result = handle_fill(hsm, options);
    if (result != TPKS_OK) {
        handle_free(hsm);
        return result;
    }
    *out = hsm;
    return TPKS_OK;
}

void hsm_close(HSM *hsm)
{
    if (hsm == NULL)
        return;
    HSM_GUARD guard;
    (void)!hsm_enter(&guard, hsm->process); /* refused: the memory is freed all the same */
    handle_free(hsm);
}

const char *hsm_token_label(const HSM *hsm)
{
    return hsm->label;
}

const char *hsm_token_serial(const HSM *hsm)
{
    return hsm->serial;
}

const char *hsm_module_name(const HSM *hsm)
{
    return hsm->connection->module->file;
}
