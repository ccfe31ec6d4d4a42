/*
 * stub.c - PEM stubs: a key file that only says where the key is
 *
 * DER (X.690) of SEQUENCE { UTF8String description, UTF8String key type, UTF8String uri }.
 */
#include "keystore.h"

#include <string.h>

#include <openssl/asn1.h>
#include <openssl/asn1t.h>
#include <openssl/crypto.h>

#include "error.h"
#include "text.h"

#define DESCRIPTION "Reference to a Trustpoint key, not a secret: see trustpoint-provider(7)"

typedef struct stub_asn1 {
    ASN1_UTF8STRING *description;
    ASN1_UTF8STRING *key_type;
    ASN1_UTF8STRING *uri;
} STUB_ASN1;

/* clang-format off */
ASN1_SEQUENCE(STUB_ASN1) = {
    ASN1_SIMPLE(STUB_ASN1, description, ASN1_UTF8STRING),
    ASN1_SIMPLE(STUB_ASN1, key_type, ASN1_UTF8STRING),
    ASN1_SIMPLE(STUB_ASN1, uri, ASN1_UTF8STRING),
} static_ASN1_SEQUENCE_END(STUB_ASN1)
    /* clang-format on */

    static void free_asn1(STUB_ASN1 * *stub)
{
    ASN1_item_free((ASN1_VALUE *)*stub, ASN1_ITEM_rptr(STUB_ASN1));
}

static void free_bytes(unsigned char **bytes)
{
    OPENSSL_free(*bytes);
}

static void free_uri(TPKS_URI **uri)
{
    tpks_uri_free(*uri);
}

/* ---- what a stub may say --------------------------------------------------------------------- */

static tpks_result check_key_type(const char *key_type)
{
    static const char *const known[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(key_type, known[i]) == 0)
            return TPKS_OK;
    return fail(TPKS_BAD_INPUT,
                "key stub: unknown key type \"%.16s\"; known are RSA, RSA-PSS, EC, "
                "ED25519 and ED448",
                key_type);
}

/* A stub stands for one private key; only a name or an id can't match several. */
static tpks_result check_uri(const char *text)
{
    __attribute__((cleanup(free_uri))) TPKS_URI *uri = NULL;
    const tpks_selector *selector;

    if (tpks_uri_parse(text, &uri) != TPKS_OK)
        return fail_in(TPKS_BAD_INPUT, "key stub");
    selector = tpks_uri_selector(uri);
    if (selector->name == NULL && selector->id == NULL)
        return fail(TPKS_BAD_INPUT, "key stub: its URI must name one record, by name or by id=");
    if (tpks_uri_type_of(uri) != TPKS_TYPE_ANY && tpks_uri_type_of(uri) != TPKS_TYPE_PRIVATE)
        return fail(TPKS_BAD_INPUT,
                    "key stub: its URI must not ask for something else than the private key");
    return TPKS_OK;
}

/* ---- encoding -------------------------------------------------------------------------------- */

static bool fill(STUB_ASN1 *stub, const char *key_type, const char *uri)
{
    return ASN1_STRING_set(stub->description, DESCRIPTION, -1) &&
           ASN1_STRING_set(stub->key_type, key_type, -1) && ASN1_STRING_set(stub->uri, uri, -1);
}

tpks_result tpks_stub_encode(const char *key_type, const char *uri, unsigned char **der,
                             size_t *size)
{
    CRYPTO_SCOPE;
    __attribute__((cleanup(free_asn1))) STUB_ASN1 *stub = NULL;
    __attribute__((cleanup(free_bytes))) unsigned char *bytes = NULL;
    int length;

    TRY(check_key_type(key_type));
    TRY(check_uri(uri));
    stub = (STUB_ASN1 *)ASN1_item_new(ASN1_ITEM_rptr(STUB_ASN1));
    if (stub == NULL || !fill(stub, key_type, uri))
        return fail_memory();
    length = ASN1_item_i2d((const ASN1_VALUE *)stub, &bytes, ASN1_ITEM_rptr(STUB_ASN1));
    if (length <= 0)
        return fail_crypto(TPKS_INTERNAL, "key stub: encoding");
    if (length > TPKS_STUB_MAX)
        return fail(TPKS_BAD_INPUT,
                    "key stub: it would have more than %d bytes: shorten the record's name",
                    TPKS_STUB_MAX);
    *der = bytes;
    *size = (size_t)length;
    bytes = NULL;
    return TPKS_OK;
}

/* ---- decoding -------------------------------------------------------------------------------- */

bool tpks_stub_looks_like(const unsigned char *der, size_t size)
{
    size_t header;

    if (size < 4 || size > TPKS_STUB_MAX || der[0] != (V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED))
        return false;
    if (der[1] < 0x80)
        header = 2;
    else if (der[1] == 0x81)
        header = 3;
    else if (der[1] == 0x82)
        header = 4;
    else
        return false;
    return size > header && der[header] == V_ASN1_UTF8STRING;
}

/* Copies text without NUL or other control characters. */
static tpks_result take(const ASN1_UTF8STRING *from, char *out, size_t size)
{
    const char *text = (const char *)ASN1_STRING_get0_data(from);
    size_t length = (size_t)ASN1_STRING_length(from);
    size_t characters;

    if (length >= size || !text_count(text, length, &characters))
        return fail(TPKS_BAD_INPUT,
                    "key stub: a text in it is too long, not UTF-8, or has a control character");
    if (length > 0)
        memcpy(out, text, length);
    out[length] = '\0';
    return TPKS_OK;
}

/* libcrypto reads BER as well; what it would not write itself in the same way is refused. */
static tpks_result check_canonical(const STUB_ASN1 *stub, const unsigned char *der, size_t size)
{
    __attribute__((cleanup(free_bytes))) unsigned char *bytes = NULL;
    int length = ASN1_item_i2d((const ASN1_VALUE *)stub, &bytes, ASN1_ITEM_rptr(STUB_ASN1));

    if (length <= 0)
        return fail_crypto(TPKS_INTERNAL, "key stub: encoding");
    if ((size_t)length != size || memcmp(bytes, der, size) != 0)
        return fail(TPKS_BAD_INPUT, "key stub: not DER, or something follows it");
    return TPKS_OK;
}

static tpks_result decode(const unsigned char *der, size_t size, tpks_stub *stub)
{
    __attribute__((cleanup(free_asn1))) STUB_ASN1 *asn1 = NULL;
    const unsigned char *at = der;
    char description[TPKS_STUB_MAX];

    asn1 = (STUB_ASN1 *)ASN1_item_d2i(NULL, &at, (long)size, ASN1_ITEM_rptr(STUB_ASN1));
    if (asn1 == NULL)
        return fail_crypto(TPKS_BAD_INPUT, "key stub: not well-formed");
    TRY(check_canonical(asn1, der, size));
    TRY(take(asn1->description, description, sizeof(description)));
    TRY(take(asn1->key_type, stub->key_type, sizeof(stub->key_type)));
    TRY(take(asn1->uri, stub->uri, sizeof(stub->uri)));
    TRY(check_key_type(stub->key_type));
    return check_uri(stub->uri);
}

tpks_result tpks_stub_decode(const unsigned char *der, size_t size, tpks_stub *out)
{
    CRYPTO_SCOPE;
    tpks_stub stub;

    if (size > TPKS_STUB_MAX)
        return fail(TPKS_BAD_INPUT, "key stub: longer than %d bytes", TPKS_STUB_MAX);
    if (!tpks_stub_looks_like(der, size))
        return fail(TPKS_BAD_INPUT, "not a key stub");
    TRY(decode(der, size, &stub));
    *out = stub;
    return TPKS_OK;
}
