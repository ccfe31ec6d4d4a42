/*
 * hsm_init.c - making a token: for a restore onto a machine whose token is gone
 *
 * Only a token that is not initialised is ever initialised, and only when no token matches the
 * URI: nothing that holds keys can be lost here. One that matches and has no user PIN yet was
 * initialised by a run that was ended then; it gets its PIN.
 */
#include "hsm_internal.h"

#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define LOOK_TRIES 8

static void clear_uri(struct token_uri *uri)
{
    token_uri_clear(uri);
}

/* ---- what is there --------------------------------------------------------------------------- */

struct place {
    bool found;
    CK_SLOT_ID slot;
    CK_TOKEN_INFO info;
};

/* What the module shows of the URI's token, or of a place for it. */
struct look {
    CK_RV rv;      /* why a slot could not be looked at */
    bool ready;    /* also when several match */
    bool namesake; /* a token has the label, but another serial number, slot or model */
    struct place half, blank;
};

static const CK_TOKEN_INFO *wanted(const struct token_uri *uri)
{
    return p11_kit_uri_get_token_info(uri->parsed);
}

/* Of a field that is padded with blanks or, in a URI that does not name it, with NUL. */
static size_t text_length(const unsigned char *field, size_t size)
{
    return p11_kit_space_strlen(field, strnlen((const char *)field, size));
}

/* The label that the URI gives the token, padded with blanks as C_InitToken wants it. */
static void pad_label(const struct token_uri *uri, CK_UTF8CHAR label[32])
{
    size_t size = strnlen((const char *)wanted(uri)->label, 32);

    memset(label, ' ', 32);
    memcpy(label, wanted(uri)->label, size);
}

static void note_initialised(const struct token_uri *uri, bool in_place, const struct place *seen,
                             struct look *look)
{
    const CK_FLAGS flags = seen->info.flags;
    bool matches = in_place && p11_kit_uri_match_token_info(uri->parsed, &seen->info) == 1;
    CK_UTF8CHAR label[32];

    pad_label(uri, label);
    if (!matches)
        look->namesake |= memcmp(label, seen->info.label, sizeof(label)) == 0;
    else if (look->half.found || (flags & CKF_LOGIN_REQUIRED) == 0 ||
             (flags & CKF_USER_PIN_INITIALIZED) != 0)
        look->ready = true;
    else
        look->half = *seen;
}

/* A blank token is a place for the new one when that would match the URI. */
static void note_blank(const struct token_uri *uri, bool in_place, const struct place *seen,
                       struct look *look)
{
    CK_TOKEN_INFO made = seen->info;

    pad_label(uri, made.label);
    if (in_place && p11_kit_uri_match_token_info(uri->parsed, &made) == 1)
        look->blank = *seen;
}

/*
 * SoftHSM answers CKR_OK for a token whose file another process is just writing, with blanks for
 * label and serial number, and without touching the flags: so they say beforehand that it is not
 * one to be initialised.
 */
static CK_RV look_at(CK_FUNCTION_LIST *functions, const struct token_uri *uri, CK_SLOT_ID slot,
                     struct look *look)
{
    CK_SLOT_ID only = p11_kit_uri_get_slot_id(uri->parsed);
    struct place seen = {true, slot, {.flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED}};
    CK_SLOT_INFO info;
    CK_RV rv = functions->C_GetTokenInfo(slot, &seen.info);

    if (rv == CKR_OK)
        rv = functions->C_GetSlotInfo(slot, &info);
    if (rv != CKR_OK)
        return rv;
    bool in_place = (only == (CK_SLOT_ID)-1 || only == slot) &&
                    p11_kit_uri_match_slot_info(uri->parsed, &info) == 1;
    if ((seen.info.flags & CKF_TOKEN_INITIALIZED) == 0)
        note_blank(uri, in_place, &seen, look);
    else if (text_length(seen.info.label, sizeof(seen.info.label)) > 0 ||
             text_length(seen.info.serialNumber, sizeof(seen.info.serialNumber)) > 0)
        note_initialised(uri, in_place, &seen, look);
    else
        return CKR_TOKEN_NOT_RECOGNIZED;
    return CKR_OK;
}

/* A slot that can't be looked at does not keep the others from being seen. */
static void look_once(struct hsm_module *module, const struct token_uri *uri, struct look *look)
{
    CK_FUNCTION_LIST *functions = module->functions;
    CK_SLOT_ID slots[256];
    CK_ULONG count = sizeof(slots) / sizeof(slots[0]);
    CK_INFO info;

    *look = (struct look){.rv = module_initialise(module)};
    if (look->rv == CKR_OK)
        look->rv = functions->C_GetInfo(&info);
    if (look->rv != CKR_OK || p11_kit_uri_match_module_info(uri->parsed, &info) != 1)
        return;
    look->rv = functions->C_GetSlotList(CK_TRUE, slots, &count);
    if (look->rv != CKR_OK)
        return;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_RV rv = look_at(functions, uri, slots[i], look);
        look->rv = rv != CKR_OK ? rv : look->rv;
    }
}

/*
 * A token that is there may not be seen for moments (hsm_session.c). So only the last of many looks
 * is believed that there is none, and only when nothing was hidden from any of them.
 */
static void look_well(struct hsm_module *module, const struct token_uri *uri, struct look *look)
{
    CK_RV hidden = CKR_OK;

    for (unsigned i = 0; i < LOOK_TRIES; i++) {
        if (i > 0) {
            module_reset(module);
            pause_jittered(i - 1);
        }
        look_once(module, uri, look);
        if (look->ready)
            return;
        hidden = look->rv != CKR_OK ? look->rv : hidden;
    }
    if (atomic_load(&module->sessions) != 0) /* then all looks were at one and the same state */
        hidden = CKR_SESSION_EXISTS;
    look->rv = hidden;
}

/* ---- making it ------------------------------------------------------------------------------- */

static tpks_result check_pin(const struct hsm_module *module, const CK_TOKEN_INFO *info,
                             const TPKS_SECRET *pin)
{
    size_t size = tpks_secret_size(pin);

    /* A module that knows no limits says 0. */
    if (info->ulMaxPinLen == 0 || (size >= info->ulMinPinLen && size <= info->ulMaxPinLen))
        return TPKS_OK;
    return fail(TPKS_WRONG_SECRET,
                "HSM module %s: a PIN of the token has %lu to %lu bytes: correct what pin-source "
                "names",
                module->file, (unsigned long)info->ulMinPinLen, (unsigned long)info->ulMaxPinLen);
}

static CK_RV set_user_pin(struct hsm_module *module, CK_SLOT_ID slot, const TPKS_SECRET *so_pin,
                          const TPKS_SECRET *pin)
{
    CK_FUNCTION_LIST *f = module->functions;
    CK_SESSION_HANDLE session;
    CK_RV rv = f->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session);

    if (rv != CKR_OK)
        return rv;
    rv = f->C_Login(session, CKU_SO, (CK_UTF8CHAR *)tpks_secret_data_const(so_pin),
                    tpks_secret_size(so_pin));
    if (rv == CKR_OK)
        rv = f->C_InitPIN(session, (CK_UTF8CHAR *)tpks_secret_data_const(pin),
                          tpks_secret_size(pin));
    f->C_CloseSession(session);
    return rv;
}

static CK_RV init_blank(struct hsm_module *module, const struct token_uri *uri, CK_SLOT_ID slot,
                        const TPKS_SECRET *so_pin)
{
    CK_UTF8CHAR label[32];

    pad_label(uri, label);
    return module->functions->C_InitToken(slot, (CK_UTF8CHAR *)tpks_secret_data_const(so_pin),
                                          tpks_secret_size(so_pin), label);
}

/* Ended between the two steps, it is gone on with at the second. */
static tpks_result make(struct hsm_module *module, const struct token_uri *uri,
                        const struct look *look, const TPKS_SECRET *so_pin, const TPKS_SECRET *pin)
{
    const struct place *place = look->half.found ? &look->half : &look->blank;
    SIGNALS_BLOCKED;
    CK_RV rv = CKR_OK;

    TRY(check_pin(module, &place->info, pin));
    if (!look->half.found)
        rv = init_blank(module, uri, place->slot, so_pin);
    if (rv == CKR_OK)
        rv = set_user_pin(module, place->slot, so_pin, pin);
    if (rv != CKR_OK)
        return fail(ckr_result(rv) == TPKS_WRONG_SECRET ? TPKS_WRONG_SECRET : TPKS_HSM_UNAVAILABLE,
                    "HSM module %s: the token could not be initialised (CKR 0x%lx): check the SO "
                    "PIN, and the lengths of both PINs, then try again",
                    module->file, (unsigned long)rv);
    sync(); /* a software token does not do it itself */
    return TPKS_OK;
}

static tpks_result check_place(const struct hsm_module *module, const struct token_uri *uri,
                               const struct look *look)
{
    if (look->half.found)
        return TPKS_OK;
    if (text_length(wanted(uri)->label, sizeof(wanted(uri)->label)) == 0)
        return fail(TPKS_BAD_CONFIG, "the token URI names no token=LABEL to give to the new token");
    if (look->namesake)
        return fail(TPKS_BAD_CONFIG,
                    "HSM module %s: a token labelled \"%.*s\" is there, but not with the other "
                    "attributes that the token URI has, such as serial= and slot-id=: correct them",
                    module->file, (int)text_length(wanted(uri)->label, 32),
                    (const char *)wanted(uri)->label);
    if (look->blank.found)
        return TPKS_OK;
    if (text_length(wanted(uri)->serialNumber, sizeof(wanted(uri)->serialNumber)) > 0)
        return fail(TPKS_BAD_CONFIG,
                    "HSM module %s: no token has the serial number of the token URI, and a new one "
                    "gets a number of its own: leave serial= out",
                    module->file);
    return fail(TPKS_TOKEN_MISSING,
                "HSM module %s: it has no token that is not initialised yet, or not where the "
                "token URI says: insert one, or initialise one with the token's own tool",
                module->file);
}

static tpks_result init_unless_there(struct hsm_module *module, const struct token_uri *uri,
                                     const char *lock_dir, const TPKS_SECRET *so_pin,
                                     const TPKS_SECRET *pin)
{
    const struct timespec deadline = deadline_in(10);
    struct look look;
    HOLD(&module->mutex);
    HOST_LOCK lock = host_lock_take(lock_dir, module->lock_name, &deadline);

    look_well(module, uri, &look);
    if (look.ready)
        return fail(TPKS_EXISTS, "HSM module %s: the token is there; it is never initialised again",
                    module->file);
    if (look.rv != CKR_OK)
        return fail(ckr_result(look.rv),
                    "HSM module %s: it may not show all of its tokens now (CKR 0x%lx), so none is "
                    "initialised: try again",
                    module->file, (unsigned long)look.rv);
    TRY(check_place(module, uri, &look));
    tpks_result result = make(module, uri, &look, so_pin, pin);
    module_reset(module); /* so that the token is seen as it is now */
    return result;
}

tpks_result hsm_init_token(const hsm_options *options, const TPKS_SECRET *so_pin)
{
    HSM_GUARD guard;
    PIN pin = {0};
    __attribute__((cleanup(clear_uri))) struct token_uri uri = {0};
    struct hsm_module *module = NULL;
    const struct hsm_caller caller = {options->ask, options->ask_arg, options->keystore_label};

    TRY(hsm_enter(&guard, NULL));
    TRY(token_uri_parse(options->token_uri, &uri));
    TRY(module_get(guard.process, &uri, &module));
    TRY(pin_get(&uri, &caller, &pin));
    return init_unless_there(module, &uri, options->lock_dir, so_pin, pin.secret);
}
