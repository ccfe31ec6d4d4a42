/*
 * hsm_init.c - making a token: for a restore onto a machine whose token is gone
 *
 * Only a token that is not initialised is ever initialised, and only when no token matches the
 * URI: nothing that holds keys can be lost here.
 */
#include "hsm_internal.h"

#include <string.h>
#include <unistd.h>

#include <openssl/crypto.h>

static void clear_uri(struct token_uri *uri)
{
    token_uri_clear(uri);
}

/* The label that the URI gives the token, padded with blanks as C_InitToken wants it. */
static tpks_result take_label(const struct token_uri *uri, CK_UTF8CHAR label[32])
{
    const CK_TOKEN_INFO *wanted = p11_kit_uri_get_token_info(uri->parsed);
    size_t size = strnlen((const char *)wanted->label, sizeof(wanted->label));

    if (p11_kit_space_strlen(wanted->label, size) == 0)
        return fail(TPKS_BAD_CONFIG, "the token URI names no token=LABEL to give to the new token");
    memset(label, ' ', 32);
    memcpy(label, wanted->label, size);
    return TPKS_OK;
}

static bool is_blank(CK_FUNCTION_LIST *functions, CK_SLOT_ID slot)
{
    CK_TOKEN_INFO info;

    return functions->C_GetTokenInfo(slot, &info) == CKR_OK &&
           (info.flags & CKF_TOKEN_INITIALIZED) == 0;
}

static tpks_result find_blank(struct hsm_module *module, CK_SLOT_ID *slot)
{
    CK_SLOT_ID slots[64];
    CK_ULONG count = sizeof(slots) / sizeof(slots[0]);
    CK_RV rv = module->functions->C_GetSlotList(CK_TRUE, slots, &count);

    for (CK_ULONG i = 0; rv == CKR_OK && i < count; i++) {
        *slot = slots[i];
        if (is_blank(module->functions, slots[i]))
            return TPKS_OK;
    }
    return fail(TPKS_TOKEN_MISSING,
                "HSM module %s: it has no token that is not initialised yet: insert one, or "
                "initialise one with the token's own tool",
                module->file);
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

static tpks_result init_blank(struct hsm_module *module, const struct token_uri *uri,
                              const TPKS_SECRET *so_pin, const TPKS_SECRET *pin)
{
    SIGNALS_BLOCKED;
    CK_SLOT_ID slot = 0;
    CK_UTF8CHAR label[32];

    TRY(take_label(uri, label));
    TRY(find_blank(module, &slot));
    CK_RV rv = module->functions->C_InitToken(slot, (CK_UTF8CHAR *)tpks_secret_data_const(so_pin),
                                              tpks_secret_size(so_pin), label);
    if (rv == CKR_OK)
        rv = set_user_pin(module, slot, so_pin, pin);
    if (rv != CKR_OK)
        return fail(ckr_result(rv) == TPKS_WRONG_SECRET ? TPKS_WRONG_SECRET : TPKS_HSM_UNAVAILABLE,
                    "HSM module %s: the token could not be initialised (CKR 0x%lx): check the SO "
                    "PIN, and the lengths of both PINs",
                    module->file, (unsigned long)rv);
    sync(); /* a software token does not do it itself */
    return TPKS_OK;
}

static tpks_result init_unless_there(struct hsm_module *module, const struct token_uri *uri,
                                     const char *lock_dir, const TPKS_SECRET *so_pin,
                                     const TPKS_SECRET *pin)
{
    const struct timespec deadline = deadline_in(10);
    CK_SLOT_ID slot;
    CK_TOKEN_INFO info;
    unsigned matches = 0;
    HOLD(&module->mutex);
    HOST_LOCK lock = host_lock_take(lock_dir, module->lock_name, &deadline);
    CK_RV rv = module_initialise(module);

    if (rv == CKR_OK)
        rv = module_find_token(module, uri, &matches, &slot, &info);
    if (rv != CKR_OK)
        return fail(ckr_result(rv), "HSM module %s: it does not list its tokens (CKR 0x%lx)",
                    module->file, (unsigned long)rv);
    if (matches != 0)
        return fail(TPKS_EXISTS, "HSM module %s: the token is there; it is never initialised again",
                    module->file);
    tpks_result result = init_blank(module, uri, so_pin, pin);
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
