/*
 * hsm_trustpoint.c - KEKs as Trustpoint makes them: without an id, known by their label
 *
 * Trustpoint takes two AES keys with its label for an error, so a new KEK is made beside the label
 * and gets it when the database knows the DEK as wrapped by it. Whatever has the label then is
 * kept, under another one.
 */
#include "hsm_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#define ATTRIBUTES_MAX 16
#define LEFT_MAX 64    /* KEKs of earlier tries */
#define OBJECT_TRIES 6 /* an eighth of a second */

struct kek_making {
    struct hsm_connection *connection;
    const TPKS_SECRET *dek;
    char next[KEK_LABEL_MAX]; /* the label meanwhile */
    bool legacy;
    CK_OBJECT_HANDLE kek;
    unsigned char *wrapped;
    unsigned char *iv;
    hsm_wrapped result;
};

static void next_label(const char *label, char out[KEK_LABEL_MAX])
{
    snprintf(out, KEK_LABEL_MAX, "%s" HSM_NEXT_SUFFIX, label);
}

/* ---- making ---------------------------------------------------------------------------------- */

/* 0.4 and 0.5 let their KEK do everything; later ones are refused by Trustpoint if they can more
 * than one thing, or leave the token. */
static CK_RV generate_as(struct kek_making *making, bool wraps, bool encrypts, bool signs)
{
    CK_MECHANISM mechanism = {CKM_AES_KEY_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    CK_BBOOL wrap = wraps ? yes : no, encrypt = encrypts ? yes : no, sign = signs ? yes : no;
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_ULONG size = DEK_SIZE;
    CK_ATTRIBUTE template[ATTRIBUTES_MAX] = {
        {CKA_CLASS, &class, sizeof(class)},
        {CKA_ID, NULL, 0},
        {CKA_LABEL, making->next, strlen(making->next)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_PRIVATE, &yes, sizeof(yes)},
        {CKA_SENSITIVE, &yes, sizeof(yes)},
        {CKA_EXTRACTABLE, &no, sizeof(no)},
        {CKA_ENCRYPT, &encrypt, sizeof(encrypt)},
        {CKA_DECRYPT, &encrypt, sizeof(encrypt)},
        {CKA_WRAP, &wrap, sizeof(wrap)},
        {CKA_UNWRAP, &wrap, sizeof(wrap)},
        {CKA_SIGN, &sign, sizeof(sign)},
        {CKA_VERIFY, &sign, sizeof(sign)},
        {CKA_DERIVE, &no, sizeof(no)},
        {CKA_VALUE_LEN, &size, sizeof(size)},
    };
    SIGNALS_BLOCKED; /* killed here, SoftHSM keeps half an object or loses the token */
    return making->connection->module->functions->C_GenerateKey(
        making->connection->session, &mechanism, template, ATTRIBUTES_MAX - 1, &making->kek);
}

static tpks_result generate(struct kek_making *making, enum kek_kind kind)
{
    bool wraps = making->legacy || kind == KEK_AES_WRAP;
    bool encrypts = making->legacy || kind == KEK_AES_ENCRYPT;
    CK_RV rv = generate_as(making, wraps, encrypts, making->legacy);

    if (rv == CKR_OK)
        return TPKS_OK;
    return fail_ckr(ckr_result(rv), making->connection, "generating the KEK", rv);
}

/* One that was made a moment ago and turned out to be of no use. */
static tpks_result discard(struct hsm_connection *connection, CK_OBJECT_HANDLE kek)
{
    SIGNALS_BLOCKED;
    CK_RV rv = connection->module->functions->C_DestroyObject(connection->session, kek);

    if (rv == CKR_OK)
        return TPKS_OK;
    return fail_ckr(ckr_result(rv), connection, "destroying a KEK that is of no use", rv);
}

static CK_RV encrypt_blocks(struct kek_making *making, const struct wrap_method *method,
                            CK_ULONG *size)
{
    CK_FUNCTION_LIST *functions = making->connection->module->functions;
    CK_SESSION_HANDLE session = making->connection->session;
    struct mechanism mechanism;

    mechanism_set(&mechanism, method, making->iv);
    CK_RV rv = functions->C_EncryptInit(session, &mechanism.mechanism, making->kek);
    if (rv != CKR_OK)
        return rv;
    *size = WRAPPED_MAX - method->skip;
    return functions->C_Encrypt(session, (unsigned char *)tpks_secret_data_const(making->dek),
                                tpks_secret_size(making->dek), making->wrapped + method->skip,
                                size);
}

/* C_Encrypt of the DEK, after the bytes that mean nothing. */
static tpks_result encrypt_dek(struct kek_making *making, const struct wrap_method *method)
{
    CK_ULONG size = 0;

    if (RAND_bytes_ex(hsm_libctx(), making->wrapped, method->skip, 0) != 1)
        return fail_crypto(TPKS_INTERNAL, "random bytes before the wrapped DEK");
    CK_RV rv = encrypt_blocks(making, method, &size);
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), making->connection, "C_Encrypt of the DEK", rv);
    making->result.size = size + method->skip;
    return TPKS_OK;
}

static tpks_result wrap_with(struct kek_making *making, const struct wrap_method *method)
{
    if (RAND_bytes_ex(hsm_libctx(), making->iv, method->iv_size, 0) != 1)
        return fail_crypto(TPKS_INTERNAL, "random bytes for the KEK");
    making->result = (hsm_wrapped){.label = making->next,
                                   .algorithm = method->algorithm,
                                   .iv = making->iv,
                                   .iv_size = method->iv_size,
                                   .data = making->wrapped};
    if (method->kind == KEK_AES_WRAP)
        TRY(wrap_dek(making->connection, method, making->kek, making->dek, making->iv,
                     making->wrapped, &making->result.size));
    else
        TRY(encrypt_dek(making, method));
    if (wrapped_is_well_formed(&making->result) &&
        dek_proves_outside(making->connection, making->kek, &making->result, making->dek))
        return TPKS_OK;
    return fail(TPKS_UNSUPPORTED, "HSM token \"%s\": it does not give back what it wrapped with %s",
                making->connection->label, method->name);
}

/* The methods that need the same kind of key, with one key. */
static tpks_result make_kind(struct kek_making *making, const wrap_algorithm *order, size_t size)
{
    tpks_result result = TPKS_UNSUPPORTED;

    TRY(generate(making, wrap_method(order[0])->kind));
    for (size_t i = 0; i < size && result == TPKS_UNSUPPORTED; i++)
        result = wrap_with(making, wrap_method(order[i]));
    if (result != TPKS_OK)
        TRY(discard(making->connection, making->kek));
    return result;
}

/* In the order in which Trustpoint tries them. */
static tpks_result make(struct kek_making *making)
{
    static const wrap_algorithm legacy[] = {WRAP_TRUSTPOINT_ECB};
    static const wrap_algorithm wrapping[] = {WRAP_AES_KW, WRAP_TRUSTPOINT_KW_PAD, WRAP_AES_KWP};
    static const wrap_algorithm encrypting[] = {WRAP_TRUSTPOINT_CBC_PAD, WRAP_TRUSTPOINT_CBC};

    if (making->legacy)
        return make_kind(making, legacy, 1);
    tpks_result result = make_kind(making, wrapping, sizeof(wrapping) / sizeof(wrapping[0]));
    if (result == TPKS_UNSUPPORTED)
        result = make_kind(making, encrypting, sizeof(encrypting) / sizeof(encrypting[0]));
    return result;
}

static tpks_result fail_search(struct hsm_connection *connection, CK_RV rv)
{
    return fail_ckr(ckr_result(rv), connection, "searching the KEK", rv);
}

/* In the keeper session, which the caller holds: 0, 1, or 2 for several. */
static tpks_result find_one(struct hsm_connection *connection, const char *label,
                            CK_OBJECT_HANDLE *kek, CK_ULONG *count)
{
    CK_RV rv = find_kek(connection, &(struct kek_name){.label = label}, kek, count);

    if (rv != CKR_OK)
        return fail_search(connection, rv);
    if (*count > 1)
        return fail(TPKS_KEK_FOREIGN,
                    "HSM token \"%s\": it has several AES keys labelled \"%.100s\": destroy or "
                    "rename the one that is not Trustpoint's KEK",
                    connection->label, label);
    return TPKS_OK;
}

/*
 * Is a call on an object worth being made again? SoftHSM calls an object invalid also for the
 * moment in which another process rewrites its file.
 */
static bool is_worth_again(CK_RV rv, unsigned *attempt)
{
    if (rv != CKR_OBJECT_HANDLE_INVALID || *attempt >= OBJECT_TRIES)
        return false;
    pause_jittered((*attempt)++);
    return true;
}

static tpks_result set_label(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                             const char *label)
{
    CK_ATTRIBUTE attribute = {CKA_LABEL, (void *)label, strlen(label)};
    SIGNALS_BLOCKED;
    unsigned attempt = 0;
    CK_RV rv;

    do
        rv = connection->module->functions->C_SetAttributeValue(connection->session, object,
                                                                &attribute, 1);
    while (is_worth_again(rv, &attempt));
    if (rv == CKR_OK)
        return TPKS_OK;
    return fail_ckr(ckr_result(rv), connection, "giving a KEK its label", rv);
}

/* Whose key it is, is not known: it is kept, under a label that nobody looks for. */
static tpks_result step_aside(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                              const char *label, const char *why)
{
    char other[KEK_LABEL_MAX];

    snprintf(other, sizeof(other), "%s.%s-%lld", label, why, (long long)time(NULL));
    return set_label(connection, object, other);
}

/* The database depends on none of them, or they would have been settled. Another host may be using
 * one just now: it knows it by its handle. */
static tpks_result clear_next(struct hsm_connection *connection, const char *label)
{
    CK_OBJECT_HANDLE kek;
    CK_ULONG count = 1;
    char next[KEK_LABEL_MAX];

    next_label(label, next);
    for (unsigned i = 0; i < LEFT_MAX && count > 0; i++) {
        CK_RV rv = find_kek(connection, &(struct kek_name){.label = next}, &kek, &count);
        if (rv != CKR_OK)
            return fail_search(connection, rv);
        if (count > 0)
            TRY(step_aside(connection, kek, label, "unused"));
    }
    return TPKS_OK;
}

tpks_result hsm_check_trustpoint_kek(HSM *hsm, const char *label)
{
    HSM_GUARD guard;
    CK_OBJECT_HANDLE present;
    CK_ULONG count = 0;

    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    HOLD(&hsm->connection->keeper);
    return find_one(hsm->connection, label, &present, &count);
}

tpks_result hsm_make_trustpoint_kek(HSM *hsm, const char *label, bool legacy,
                                    const TPKS_SECRET *dek, wrap_algorithm *algorithm,
                                    unsigned char *wrapped, size_t *wrapped_size,
                                    unsigned char iv[16], size_t *iv_size)
{
    HSM_GUARD guard;
    CK_ULONG count = 0;
    struct kek_making making = {
        .connection = hsm->connection, .dek = dek, .legacy = legacy, .wrapped = wrapped, .iv = iv};

    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    next_label(label, making.next);
    HOLD(&hsm->connection->keeper);
    /* What can't be settled later is not begun. */
    TRY(find_one(hsm->connection, label, &making.kek, &count));
    TRY(clear_next(hsm->connection, label));
    TRY(make(&making));
    make_durable();
    hsm->made = making.kek;
    hsm->has_made = true;
    *algorithm = making.result.algorithm;
    *wrapped_size = making.result.size;
    *iv_size = making.result.iv_size;
    return TPKS_OK;
}

/* ---- the label ------------------------------------------------------------------------------- */

/*
 * Has another process given the new KEK its label, or is it there to be given? It may be called
 * anything by now: another host that restores takes it for one that a crash has left.
 */
static tpks_result is_unsettled(HSM *hsm, const char *label, bool *is)
{
    char present[KEK_LABEL_MAX];
    CK_ATTRIBUTE attribute;
    unsigned attempt = 0;
    CK_RV rv;

    do {
        attribute = (CK_ATTRIBUTE){CKA_LABEL, present, sizeof(present)};
        rv = hsm->connection->module->functions->C_GetAttributeValue(hsm->connection->session,
                                                                     hsm->made, &attribute, 1);
    } while (is_worth_again(rv, &attempt));
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "reading the label of the new KEK", rv);
    *is = attribute.ulValueLen != strlen(label) || memcmp(present, label, strlen(label)) != 0;
    return TPKS_OK;
}

static tpks_result find_next(HSM *hsm, const char *label, CK_OBJECT_HANDLE *next, bool *has)
{
    CK_ULONG count = 0;
    char name[KEK_LABEL_MAX];

    next_label(label, name);
    *next = hsm->made;
    if (hsm->has_made)
        return is_unsettled(hsm, label, has);
    TRY(find_one(hsm->connection, name, next, &count));
    *has = count == 1;
    return TPKS_OK;
}

tpks_result hsm_settle_trustpoint_kek(HSM *hsm, const char *label)
{
    HSM_GUARD guard;
    CK_OBJECT_HANDLE next, present;
    CK_ULONG has_present = 0;
    bool has_next = false;

    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    HOLD(&hsm->connection->keeper);
    TRY(find_next(hsm, label, &next, &has_next));
    if (!has_next)
        return TPKS_OK;
    TRY(find_one(hsm->connection, label, &present, &has_present));
    if (has_present == 1)
        TRY(step_aside(hsm->connection, present, label, "replaced"));
    TRY(set_label(hsm->connection, next, label));
    make_durable();
    return TPKS_OK;
}

tpks_result hsm_discard_trustpoint_kek(HSM *hsm)
{
    HSM_GUARD guard;

    TRY(hsm_enter(&guard, hsm->process));
    if (!hsm->has_made)
        return TPKS_OK;
    HOLD(&hsm->connection->keeper);
    hsm->has_made = false;
    return discard(hsm->connection, hsm->made);
}
