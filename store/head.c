/* head.c - header, DEKs, slots and wraps in memory, and the seal over them */
#include "head.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "error.h"

static void bytes_clear(bytes *b)
{
    OPENSSL_free(b->data);
    memset(b, 0, sizeof(*b));
}

tpks_result bytes_set(bytes *to, const void *data, size_t size)
{
    bytes_clear(to);
    if (size == 0)
        return TPKS_OK;
    to->data = OPENSSL_memdup(data, size);
    if (to->data == NULL)
        return fail_memory();
    to->size = size;
    return TPKS_OK;
}

void *rows_grow(void *array, size_t *count, size_t size)
{
    if ((*count & (*count - 1)) == 0) { /* zero or a power of two: full */
        size_t room = *count == 0 ? 1 : *count * 2;
        array = OPENSSL_realloc(array, room * size);
        if (array == NULL)
            return NULL;
    }
    memset((char *)array + *count * size, 0, size);
    ++*count;
    return array;
}

void slot_row_clear(slot_row *slot)
{
    OPENSSL_free(slot->label);
    OPENSSL_free(slot->host);
    OPENSSL_free(slot->token_label);
    OPENSSL_free(slot->token_serial);
    OPENSSL_free(slot->kek_label);
    bytes_clear(&slot->cka_id);
    bytes_clear(&slot->salt);
    bytes_clear(&slot->extension);
    memset(slot, 0, sizeof(*slot));
}

void wrap_row_clear(wrap_row *wrap)
{
    bytes_clear(&wrap->iv);
    bytes_clear(&wrap->wrapped);
    bytes_clear(&wrap->commitment);
    bytes_clear(&wrap->extension);
    memset(wrap, 0, sizeof(*wrap));
}

void head_clear(head *h)
{
    for (size_t i = 0; i < h->dek_count; i++) {
        bytes_clear(&h->deks[i].previous);
        bytes_clear(&h->deks[i].extension);
    }
    for (size_t i = 0; i < h->slot_count; i++)
        slot_row_clear(&h->slots[i]);
    for (size_t i = 0; i < h->wrap_count; i++)
        wrap_row_clear(&h->wraps[i]);
    OPENSSL_free(h->deks);
    OPENSSL_free(h->slots);
    OPENSSL_free(h->wraps);
    OPENSSL_free(h->label);
    OPENSSL_free(h->token);
    OPENSSL_free(h->token_elsewhere);
    bytes_clear(&h->extension);
    memset(h, 0, sizeof(*h));
}

void head_swap(head *a, head *b)
{
    head kept = *a;

    *a = *b;
    *b = kept;
}

static tpks_result text_copy(char **to, const char *from)
{
    *to = OPENSSL_strdup(from);
    return *to == NULL ? fail_memory() : TPKS_OK;
}

/* `to` is zeroed; on failure it holds what could be copied, to be cleared with the head. */
static tpks_result slot_row_copy(slot_row *to, const slot_row *from)
{
    memcpy(to->id, from->id, TPKS_ID_SIZE);
    to->kind = from->kind;
    to->state = from->state;
    to->kdf_version = from->kdf_version;
    to->cost = from->cost;
    to->created = from->created;
    TRY(text_copy(&to->label, from->label));
    TRY(text_copy(&to->host, from->host));
    TRY(text_copy(&to->token_label, from->token_label));
    TRY(text_copy(&to->token_serial, from->token_serial));
    if (from->kek_label != NULL)
        TRY(text_copy(&to->kek_label, from->kek_label));
    TRY(bytes_set(&to->cka_id, from->cka_id.data, from->cka_id.size));
    TRY(bytes_set(&to->salt, from->salt.data, from->salt.size));
    return bytes_set(&to->extension, from->extension.data, from->extension.size);
}

static tpks_result wrap_row_copy(wrap_row *to, const wrap_row *from)
{
    memcpy(to->slot, from->slot, TPKS_ID_SIZE);
    memcpy(to->dek, from->dek, TPKS_ID_SIZE);
    to->algorithm = from->algorithm;
    TRY(bytes_set(&to->iv, from->iv.data, from->iv.size));
    TRY(bytes_set(&to->wrapped, from->wrapped.data, from->wrapped.size));
    TRY(bytes_set(&to->commitment, from->commitment.data, from->commitment.size));
    return bytes_set(&to->extension, from->extension.data, from->extension.size);
}

void head_drop_slot(head *h, const unsigned char id[TPKS_ID_SIZE])
{
    size_t slots = 0, wraps = 0;

    for (size_t i = 0; i < h->slot_count; i++) {
        if (memcmp(h->slots[i].id, id, TPKS_ID_SIZE) == 0)
            slot_row_clear(&h->slots[i]);
        else
            h->slots[slots++] = h->slots[i];
    }
    for (size_t i = 0; i < h->wrap_count; i++) {
        if (memcmp(h->wraps[i].slot, id, TPKS_ID_SIZE) == 0)
            wrap_row_clear(&h->wraps[i]);
        else
            h->wraps[wraps++] = h->wraps[i];
    }
    h->slot_count = slots;
    h->wrap_count = wraps;
}

tpks_result head_put_slot(head *h, const slot_row *slot, const wrap_row *wrap)
{
    head_drop_slot(h, slot->id);
    slot_row *slots = rows_grow(h->slots, &h->slot_count, sizeof(*slots));
    if (slots == NULL)
        return fail_memory();
    h->slots = slots;
    TRY(slot_row_copy(&slots[h->slot_count - 1], slot));
    if (wrap == NULL)
        return TPKS_OK;
    wrap_row *wraps = rows_grow(h->wraps, &h->wrap_count, sizeof(*wraps));
    if (wraps == NULL)
        return fail_memory();
    h->wraps = wraps;
    return wrap_row_copy(&wraps[h->wrap_count - 1], wrap);
}

const slot_row *head_slot(const head *h, const unsigned char id[TPKS_ID_SIZE])
{
    for (size_t i = 0; i < h->slot_count; i++)
        if (memcmp(h->slots[i].id, id, TPKS_ID_SIZE) == 0)
            return &h->slots[i];
    return NULL;
}

const dek_row *head_dek(const head *h, const unsigned char id[TPKS_ID_SIZE])
{
    for (size_t i = 0; i < h->dek_count; i++)
        if (memcmp(h->deks[i].id, id, TPKS_ID_SIZE) == 0)
            return &h->deks[i];
    return NULL;
}

const wrap_row *head_wrap(const head *h, const slot_row *slot)
{
    for (size_t i = 0; i < h->wrap_count; i++)
        if (memcmp(h->wraps[i].slot, slot->id, TPKS_ID_SIZE) == 0 &&
            memcmp(h->wraps[i].dek, h->dek, TPKS_ID_SIZE) == 0)
            return &h->wraps[i];
    return NULL;
}

const char *slot_kind_name(uint64_t kind)
{
    static const char *const names[] = {"unknown",  "hsm-aes",  "hsm-rsa-oaep",
                                        "password", "recovery", "software"};

    return names[kind < sizeof(names) / sizeof(names[0]) ? kind : 0];
}

const char *slot_state_name(uint64_t state)
{
    static const char *const names[] = {"unknown", "pending", "active", "stale", "retired"};

    return names[state < sizeof(names) / sizeof(names[0]) ? state : 0];
}

bool slot_is_way_back(const slot_row *slot)
{
    return slot->state == SLOT_ACTIVE &&
           (slot->kind == SLOT_PASSWORD || slot->kind == SLOT_RECOVERY);
}

size_t head_ways_back(const head *h)
{
    size_t count = 0;

    for (size_t i = 0; i < h->slot_count; i++)
        count += slot_is_way_back(&h->slots[i]);
    return count;
}

bool slot_is_hsm(const slot_row *slot)
{
    return slot->kind == SLOT_HSM_AES || slot->kind == SLOT_HSM_RSA_OAEP;
}

/* ---- what is authenticated ---- */

static void encode_dek(canonical *c, const dek_row *dek)
{
    canonical_bytes(c, dek->id, sizeof(dek->id));
    canonical_integer(c, dek->state);
    canonical_bytes(c, dek->check_nonce, sizeof(dek->check_nonce));
    canonical_bytes(c, dek->check_value, sizeof(dek->check_value));
    canonical_bytes(c, dek->previous.data, dek->previous.size);
    canonical_bytes(c, dek->extension.data, dek->extension.size);
}

static void encode_slot(canonical *c, const slot_row *slot)
{
    canonical_bytes(c, slot->id, sizeof(slot->id));
    canonical_integer(c, slot->kind);
    canonical_integer(c, slot->state);
    canonical_text(c, slot->label);
    canonical_text(c, slot->host);
    canonical_text(c, slot->token_label);
    canonical_text(c, slot->token_serial);
    canonical_bytes(c, slot->cka_id.data, slot->cka_id.size);
    canonical_integer(c, slot->kdf_version);
    canonical_integer(c, slot->cost.t);
    canonical_integer(c, slot->cost.m_kib);
    canonical_integer(c, slot->cost.p);
    canonical_bytes(c, slot->salt.data, slot->salt.size);
    canonical_integer(c, (uint64_t)slot->created);
    canonical_bytes(c, slot->extension.data, slot->extension.size);
}

static void encode_wrap(canonical *c, const wrap_row *wrap)
{
    canonical_bytes(c, wrap->slot, sizeof(wrap->slot));
    canonical_bytes(c, wrap->dek, sizeof(wrap->dek));
    canonical_integer(c, wrap->algorithm);
    canonical_bytes(c, wrap->iv.data, wrap->iv.size);
    canonical_bytes(c, wrap->wrapped.data, wrap->wrapped.size);
    canonical_bytes(c, wrap->commitment.data, wrap->commitment.size);
    canonical_bytes(c, wrap->extension.data, wrap->extension.size);
}

static void encode_head(canonical *c, const head *h)
{
    canonical_bytes(c, h->keystore, sizeof(h->keystore));
    canonical_text(c, h->label);
    canonical_integer(c, h->format);
    canonical_integer(c, h->required);
    canonical_integer(c, h->optional);
    canonical_integer(c, h->generation);
    canonical_bytes(c, h->dek, sizeof(h->dek));
    canonical_bytes(c, h->extension.data, h->extension.size);
    canonical_integer(c, h->dek_count);
    for (size_t i = 0; i < h->dek_count; i++)
        encode_dek(c, &h->deks[i]);
    canonical_integer(c, h->slot_count);
    for (size_t i = 0; i < h->slot_count; i++)
        encode_slot(c, &h->slots[i]);
    canonical_integer(c, h->wrap_count);
    for (size_t i = 0; i < h->wrap_count; i++)
        encode_wrap(c, &h->wraps[i]);
}

static void encode_check(canonical *c, const head *h, const unsigned char dek[TPKS_ID_SIZE])
{
    canonical_bytes(c, h->keystore, sizeof(h->keystore));
    canonical_bytes(c, dek, TPKS_ID_SIZE);
}

tpks_result head_make_check(const head *h, DEK *dek, dek_row *row)
{
    CANONICAL about = {0};

    encode_check(&about, h, row->id);
    return dek_prove(dek, DOMAIN_DEK, &about, row->check_nonce, row->check_value);
}

tpks_result head_prove_dek(const head *h, DEK *dek)
{
    CANONICAL about = {0};
    const dek_row *row = head_dek(h, h->dek);

    if (row == NULL)
        return fail(TPKS_TAMPERED,
                    "the header names a DEK that is not there: restore from a backup");
    encode_check(&about, h, row->id);
    return dek_check(dek, DOMAIN_DEK, &about, row->check_nonce, row->check_value);
}

tpks_result head_check_seal(const head *h, DEK *dek)
{
    CANONICAL about = {0};

    encode_head(&about, h);
    tpks_result result = dek_check(dek, DOMAIN_HEADER, &about, h->seal_nonce, h->seal);
    if (result == TPKS_TAMPERED)
        return fail(TPKS_TAMPERED,
                    "the header, a slot or a wrap was changed by someone without the "
                    "DEK: restore the database from a backup");
    return result;
}

tpks_result head_check_written(const head *stored, const head *written)
{
    CANONICAL one = {0}, other = {0};
    bool same = false;

    encode_head(&one, stored);
    encode_head(&other, written);
    TRY(canonical_compare(&one, &other, &same));
    if (!same || memcmp(stored->seal_nonce, written->seal_nonce, NONCE_SIZE) != 0 ||
        memcmp(stored->seal, written->seal, PROOF_SIZE) != 0)
        return fail(TPKS_DATABASE_UNAVAILABLE,
                    "the database does not return what was written; nothing was changed");
    return TPKS_OK;
}

static int by_first_id(const void *a, const void *b)
{
    return memcmp(a, b, TPKS_ID_SIZE);
}

static int by_both_ids(const void *a, const void *b)
{
    return memcmp(a, b, (size_t)2 * TPKS_ID_SIZE);
}

/* The ids are the first members of the rows. */
_Static_assert(offsetof(dek_row, id) == 0 && offsetof(slot_row, id) == 0, "sorted by their start");
_Static_assert(offsetof(wrap_row, slot) == 0 && offsetof(wrap_row, dek) == TPKS_ID_SIZE,
               "sorted by their start");

tpks_result head_seal(head *h, DEK *dek)
{
    CANONICAL about = {0};

    if (h->dek_count > 1)
        qsort(h->deks, h->dek_count, sizeof(*h->deks), by_first_id);
    if (h->slot_count > 1)
        qsort(h->slots, h->slot_count, sizeof(*h->slots), by_first_id);
    if (h->wrap_count > 1)
        qsort(h->wraps, h->wrap_count, sizeof(*h->wraps), by_both_ids);

    encode_head(&about, h);
    return dek_prove(dek, DOMAIN_HEADER, &about, h->seal_nonce, h->seal);
}
