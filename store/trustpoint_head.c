/* trustpoint_head.c - slots and wraps that Trustpoint's rows amount to */
#include <stdio.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "error.h"
#include "file.h"
#include "trustpoint.h"

#define DOMAIN_KEYSTORE "trustpoint-keystore/trustpoint/"
#define LABEL "Trustpoint"
#define ID_TEXT_MAX 1024

tpks_result trustpoint_set_text(char **to, const char *text)
{
    OPENSSL_free(*to);
    *to = OPENSSL_strdup(text == NULL ? "" : text);
    return *to == NULL ? fail_memory() : TPKS_OK;
}

/* An id that is the same each time: the first half of a digest. */
static tpks_result derive_id(OSSL_LIB_CTX *libctx, const char *text, unsigned char id[TPKS_ID_SIZE])
{
    unsigned char digest[SHA256_SIZE];

    TRY(sha256(libctx, text, strlen(text), digest));
    memcpy(id, digest, TPKS_ID_SIZE);
    return TPKS_OK;
}

tpks_result trustpoint_start_head(OSSL_LIB_CTX *libctx, const char *facts, head *h)
{
    char text[ID_TEXT_MAX];

    head_clear(h);
    snprintf(text, sizeof(text), DOMAIN_KEYSTORE "%s", facts);
    TRY(derive_id(libctx, text, h->keystore));
    /* There is one DEK, and no name for it. */
    memcpy(h->dek, h->keystore, TPKS_ID_SIZE);
    return trustpoint_set_text(&h->label, LABEL);
}

tpks_result trustpoint_add_slot(OSSL_LIB_CTX *libctx, head *h, slot_kind kind, const char *label,
                                slot_row **slot)
{
    char text[ID_TEXT_MAX], keystore[2 * TPKS_ID_SIZE + 1];
    slot_row *slots = rows_grow(h->slots, &h->slot_count, sizeof(*slots));

    if (slots == NULL)
        return fail_memory();
    h->slots = slots;
    slot_row *made = &slots[h->slot_count - 1];
    made->kind = kind;
    made->state = SLOT_ACTIVE;
    hex_text(h->keystore, TPKS_ID_SIZE, keystore);
    snprintf(text, sizeof(text), DOMAIN_KEYSTORE "slot/%s/%s", slot_kind_name(kind), keystore);
    TRY(derive_id(libctx, text, made->id));
    TRY(trustpoint_set_text(&made->label, label));
    TRY(trustpoint_set_text(&made->host, NULL));
    TRY(trustpoint_set_text(&made->token_label, NULL));
    TRY(trustpoint_set_text(&made->token_serial, NULL));
    *slot = made;
    return TPKS_OK;
}

tpks_result trustpoint_add_wrap(head *h, const slot_row *slot, wrap_algorithm algorithm,
                                const unsigned char *data, size_t size)
{
    wrap_row *wraps = rows_grow(h->wraps, &h->wrap_count, sizeof(*wraps));

    if (wraps == NULL)
        return fail_memory();
    h->wraps = wraps;
    wrap_row *made = &wraps[h->wrap_count - 1];
    memcpy(made->slot, slot->id, TPKS_ID_SIZE);
    memcpy(made->dek, h->dek, TPKS_ID_SIZE);
    made->algorithm = algorithm;
    return bytes_set(&made->wrapped, data, size);
}

static void free_text(char **text)
{
    OPENSSL_free(*text);
}

tpks_result trustpoint_set_token(head *h, const char *label, const char *serial, const char *module,
                                 const char *pin_file)
{
    bool has_pin = pin_file != NULL && *pin_file == '/';
    bool has_module = module != NULL && *module == '/';
    __attribute__((cleanup(free_text))) char *ours = has_module ? file_of_ours(module) : NULL;
    char *uri = NULL;

    /* What can't be written as a URI only means that it must be configured. */
    if (!has_pin || !has_module ||
        hsm_make_uri(label, serial, ours != NULL ? ours : module, pin_file, &uri) != TPKS_OK)
        return TPKS_OK;
    if (ours != NULL && access(pin_file, F_OK) == 0)
        h->token = uri;
    else
        h->token_elsewhere = uri;
    return TPKS_OK;
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_slot(const slot_row *a, const slot_row *b)
{
    return memcmp(a->id, b->id, TPKS_ID_SIZE) == 0 && same_text(a->token_label, b->token_label) &&
           same_text(a->token_serial, b->token_serial) && same_text(a->kek_label, b->kek_label);
}

static bool same_wrap(const wrap_row *a, const wrap_row *b)
{
    return memcmp(a->slot, b->slot, TPKS_ID_SIZE) == 0 && a->algorithm == b->algorithm &&
           a->wrapped.size == b->wrapped.size &&
           (a->wrapped.size == 0 ||
            memcmp(a->wrapped.data, b->wrapped.data, a->wrapped.size) == 0) &&
           a->iv.size == b->iv.size &&
           (a->iv.size == 0 || memcmp(a->iv.data, b->iv.data, a->iv.size) == 0);
}

bool trustpoint_same_head(const head *a, const head *b)
{
    bool same = memcmp(a->keystore, b->keystore, TPKS_ID_SIZE) == 0 &&
                a->slot_count == b->slot_count && a->wrap_count == b->wrap_count;

    for (size_t i = 0; i < a->slot_count && same; i++)
        same = same_slot(&a->slots[i], &b->slots[i]);
    for (size_t i = 0; i < a->wrap_count && same; i++)
        same = same_wrap(&a->wraps[i], &b->wraps[i]);
    return same;
}
