/*
 * hsm_error.c - what PKCS#11 result codes mean here (PKCS#11 3.0, section 5.1)
 */
#include "hsm_internal.h"

#include <unistd.h>

enum recovery recovery_for(CK_RV rv, bool ambiguous)
{
    switch (rv) {
    case CKR_OBJECT_HANDLE_INVALID:
    case CKR_KEY_HANDLE_INVALID:
    case CKR_UNWRAPPING_KEY_HANDLE_INVALID:
    case CKR_WRAPPING_KEY_HANDLE_INVALID:
        return RECOVER_HANDLES;
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_SESSION_CLOSED:
    case CKR_USER_NOT_LOGGED_IN:
        return RECOVER_SESSION;
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_SLOT_ID_INVALID:
    case CKR_CRYPTOKI_NOT_INITIALIZED:
        return RECOVER_MODULE;
    case CKR_GENERAL_ERROR:
    case CKR_FUNCTION_FAILED:
        return ambiguous ? RECOVER_NOT : RECOVER_MODULE;
    default:
        return RECOVER_NOT;
    }
}

tpks_result ckr_result(CK_RV rv)
{
    switch (rv) {
    case CKR_HOST_MEMORY:
        return TPKS_NO_MEMORY;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
        return TPKS_WRONG_SECRET;
    case CKR_PIN_LOCKED:
        return TPKS_PIN_LOCKED;
    case CKR_SESSION_READ_ONLY:
    case CKR_TOKEN_WRITE_PROTECTED:
        return TPKS_NOT_PERMITTED;
    case CKR_MECHANISM_INVALID:
    case CKR_MECHANISM_PARAM_INVALID:
    case CKR_FUNCTION_NOT_SUPPORTED:
    case CKR_ARGUMENTS_BAD:
    case CKR_ATTRIBUTE_READ_ONLY:
    case CKR_ATTRIBUTE_SENSITIVE:
    case CKR_ATTRIBUTE_TYPE_INVALID:
    case CKR_ATTRIBUTE_VALUE_INVALID:
    case CKR_TEMPLATE_INCOMPLETE:
    case CKR_TEMPLATE_INCONSISTENT:
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
    case CKR_KEY_TYPE_INCONSISTENT:
    case CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT:
    case CKR_KEY_SIZE_RANGE:
    case CKR_KEY_UNEXTRACTABLE:
    case CKR_KEY_NOT_WRAPPABLE:
        return TPKS_UNSUPPORTED;
    default:
        return TPKS_HSM_UNAVAILABLE;
    }
}

static const char *hint_for(tpks_result result)
{
    switch (result) {
    case TPKS_WRONG_SECRET:
        return "correct the PIN that pin-source names";
    case TPKS_PIN_LOCKED:
        return "have the PIN reset with the token's own tool";
    case TPKS_NOT_PERMITTED:
        return "check that the token may be written";
    case TPKS_UNSUPPORTED:
        return "this token can't do it: try dek = process, or another token";
    case TPKS_KEK_FOREIGN:
        return "the key on the token and the stored DEK don't belong together: restore with a "
               "backup password";
    case TPKS_TAMPERED:
        return "restore the database from a backup";
    case TPKS_NO_MEMORY:
        return "free some memory";
    default:
        return "check that the HSM is running and that this user may use it";
    }
}

tpks_result fail_ckr(tpks_result result, const struct hsm_connection *connection, const char *call,
                     CK_RV rv)
{
    const char *module = connection->module != NULL ? connection->module->file : NULL;
    return fail(result, "HSM token \"%s\" (%s): %s failed: %s (CKR 0x%lx), uid %u: %s",
                connection->label, module != NULL ? module : "no module", call,
                p11_kit_strerror(rv), (unsigned long)rv, (unsigned)geteuid(), hint_for(result));
}
