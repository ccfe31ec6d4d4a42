/*
 * uri.c - trustpoint: URIs (generic syntax: RFC 3986) and the names in them
 *
 * A URI selects and never configures. Error texts name attributes and positions, never values:
 * whoever writes a PIN into a URI by mistake shall not find it in a log.
 */
#include "keystore.h"

#include <stdio.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/crypto.h>

#include "config.h"
#include "error.h"
#include "text.h"

#define SCHEME "trustpoint:"
#define URI_MAX 4096
#define NAME_MAX_BYTES 255
#define SHA1_SIZE 20
#define SHA256_SIZE 32
#define SERIAL_MAX 32  /* RFC 5280 allows 20 bytes; some authorities go beyond */
#define VALUE_MAX 1024 /* Django counts characters: 255 of them, four bytes each */
#define TEXTS 8
#define DIGITS_AND_LETTERS "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define CREDENTIAL_DIGITS 18 /* fits 64 bits */
#define HEX_DIGITS "0123456789ABCDEFabcdef"
#define UNRESERVED DIGITS_AND_LETTERS "-._~" /* RFC 3986 section 2.3 */
/* What stands for itself in a name or value: RFC 3986's pchar and '/' without & = ; $ */
#define PLAIN UNRESERVED "!'()*+,:@/"

struct tpks_uri {
    char name[NAME_MAX_BYTES + 1];
    char keystore[KEYSTORE_NAME_MAX + 1];
    tpks_uri_type type;
    unsigned char id[TPKS_ID_SIZE];
    unsigned char cert_sha256[SHA256_SIZE];
    unsigned char cert_sha1[SHA1_SIZE];
    unsigned char spki_sha256[SHA256_SIZE];
    unsigned char serial[SERIAL_MAX];
    char texts[TEXTS][VALUE_MAX]; /* one for each selector that is a text */
    size_t text_count;
    tpks_selector selector;
};

tpks_result tpks_name_check(const char *name)
{
    size_t size = strnlen(name, NAME_MAX_BYTES + 1);
    size_t characters;

    if (size == 0)
        return fail(TPKS_BAD_INPUT, "the name is empty: a name has 1 to %d bytes", NAME_MAX_BYTES);
    if (size > NAME_MAX_BYTES)
        return fail(TPKS_BAD_INPUT, "the name is longer than %d bytes: choose a shorter one",
                    NAME_MAX_BYTES);
    if (*name == '-' || *name == '/')
        return fail(TPKS_BAD_INPUT,
                    "the name starts with '%c', so programs would take it for an option or a path: "
                    "choose another one",
                    *name);
    if (!text_count(name, size, &characters))
        return fail(TPKS_BAD_INPUT, "the name has a control character or is not UTF-8: choose "
                                    "another one");
    return TPKS_OK;
}

/* ---- percent-encoding ------------------------------------------------------------------------ */

/* A piece of the URI, still encoded. */
typedef struct piece {
    const char *text;
    size_t size;
} piece;

static bool is_escape(piece in, size_t i)
{
    return in.size - i >= strlen("%NN") &&
           OPENSSL_hexchar2int((unsigned char)in.text[i + 1]) >= 0 &&
           OPENSSL_hexchar2int((unsigned char)in.text[i + 2]) >= 0;
}

/* Decodes a name or value of what `what` names into `out`, NUL-terminated. */
static tpks_result decode(piece in, const char *what, char *out, size_t out_size)
{
    size_t n = 0, characters;

    for (size_t i = 0; i < in.size; i++, n++) {
        if (n + 1 >= out_size)
            return fail(TPKS_BAD_URI, "URI: %s is too long", what);
        out[n] = in.text[i];
        if (in.text[i] == '%') {
            if (!is_escape(in, i))
                return fail(TPKS_BAD_URI,
                            "URI: %s has a '%%' that two hexadecimal digits don't follow; a '%%' "
                            "itself is written %%25",
                            what);
            out[n] = (char)(OPENSSL_hexchar2int((unsigned char)in.text[i + 1]) << 4 |
                            OPENSSL_hexchar2int((unsigned char)in.text[i + 2]));
            i += 2;
        }
    }
    out[n] = '\0';
    if (!text_count(out, n, &characters))
        return fail(TPKS_BAD_URI, "URI: %s has a control character or is not UTF-8", what);
    return TPKS_OK;
}

/* Everything in the piece stands for itself or is an escape (which decode() looks at closer). */
static tpks_result check_plain(piece in, const char *what)
{
    for (size_t i = 0; i < in.size; i++)
        if (strchr(PLAIN "%", in.text[i]) == NULL)
            return fail(TPKS_BAD_URI, "URI: in %s the byte number %zu must be written as %%%02X",
                        what, i + 1, (unsigned)(unsigned char)in.text[i]);
    return TPKS_OK;
}

static char *encode(char *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;

        if (strchr(UNRESERVED "/", byte) != NULL) {
            *out++ = (char)byte;
        } else {
            *out++ = '%';
            *out++ = digits[byte >> 4];
            *out++ = digits[byte & 15];
        }
    }
    return out;
}

char *tpks_uri_build(const char *keystore, const char *name)
{
    const char *section = keystore != NULL ? keystore : "";
    size_t room = strlen(SCHEME "//?keystore=") + 3 * (strlen(name) + strlen(section)) + 1;
    char *uri = OPENSSL_malloc(room);
    char *end;

    if (uri == NULL)
        return NULL;
    end = encode(stpcpy(uri, SCHEME "//"), name);
    if (*section != '\0')
        end = encode(stpcpy(end, "?keystore="), section);
    *end = '\0';
    return uri;
}

/* ---- attributes ------------------------------------------------------------------------------ */

static bool is_hex(const char *value)
{
    return value[strspn(value, HEX_DIGITS)] == '\0';
}

static tpks_result parse_hex(const char *attribute, const char *value, unsigned char *out,
                             size_t size)
{
    size_t got = 0;

    if (strlen(value) != 2 * size || !is_hex(value) ||
        !OPENSSL_hexstr2buf_ex(out, size, &got, value, '\0') || got != size)
        return fail(TPKS_BAD_URI,
                    "URI: attribute \"%s\" must have %zu hexadecimal digits, without "
                    "colons",
                    attribute, 2 * size);
    return TPKS_OK;
}

static tpks_result set_id(TPKS_URI *uri, const char *value)
{
    TRY(parse_hex("id", value, uri->id, sizeof(uri->id)));
    uri->selector.id = uri->id;
    return TPKS_OK;
}

static tpks_result set_fingerprint(TPKS_URI *uri, const char *value)
{
    if (strlen(value) == 2 * SHA1_SIZE) {
        TRY(parse_hex("fingerprint", value, uri->cert_sha1, SHA1_SIZE));
        uri->selector.cert_sha1 = uri->cert_sha1;
        return TPKS_OK;
    }
    if (strlen(value) != 2 * SHA256_SIZE)
        return fail(TPKS_BAD_URI, "URI: attribute \"fingerprint\" must have 64 hexadecimal digits "
                                  "(SHA-256) or 40 (SHA-1), without colons");
    TRY(parse_hex("fingerprint", value, uri->cert_sha256, SHA256_SIZE));
    uri->selector.cert_sha256 = uri->cert_sha256;
    return TPKS_OK;
}

static tpks_result set_spki(TPKS_URI *uri, const char *value)
{
    TRY(parse_hex("spki", value, uri->spki_sha256, sizeof(uri->spki_sha256)));
    uri->selector.spki_sha256 = uri->spki_sha256;
    return TPKS_OK;
}

static tpks_result set_serial(TPKS_URI *uri, const char *value)
{
    BIGNUM *number = NULL;

    if (!is_hex(value) || strlen(value) > 2 * SERIAL_MAX)
        return fail(TPKS_BAD_URI,
                    "URI: attribute \"serial\" must have 1 to %d hexadecimal digits, "
                    "without colons",
                    2 * SERIAL_MAX);
    if (BN_hex2bn(&number, value) == 0)
        return fail_memory();
    uri->selector.serial_size = (size_t)BN_bn2bin(number, uri->serial);
    uri->selector.serial = uri->serial;
    BN_free(number);
    return TPKS_OK;
}

static tpks_result set_type(TPKS_URI *uri, const char *value)
{
    static const char *const names[] = {[TPKS_TYPE_PRIVATE] = "private",
                                        [TPKS_TYPE_PUBLIC] = "public",
                                        [TPKS_TYPE_CERT] = "cert",
                                        [TPKS_TYPE_CHAIN] = "chain"};

    for (int i = TPKS_TYPE_PRIVATE; i <= TPKS_TYPE_CHAIN; i++)
        if (strcmp(value, names[i]) == 0) {
            uri->type = (tpks_uri_type)i;
            return TPKS_OK;
        }
    return fail(TPKS_BAD_URI, "URI: attribute \"type\" must be private, public, cert or chain");
}

static tpks_result set_keystore(TPKS_URI *uri, const char *value)
{
    if (!config_keystore_name_ok(value))
        return fail(TPKS_BAD_URI,
                    "URI: attribute \"keystore\" must be the NAME of a section "
                    "[keystore_NAME] of the configuration file: 1 to %d of a-z, 0-9, "
                    "'_', '-'",
                    KEYSTORE_NAME_MAX);
    OPENSSL_strlcpy(uri->keystore, value, sizeof(uri->keystore));
    return TPKS_OK;
}

/* A selector that is compared as it stands. */
static tpks_result keep_text(TPKS_URI *uri, const char *value, const char **selector)
{
    char *kept = uri->texts[uri->text_count++];

    OPENSSL_strlcpy(kept, value, VALUE_MAX);
    *selector = kept;
    return TPKS_OK;
}

static tpks_result set_role(TPKS_URI *uri, const char *value)
{
    if (strcmp(value, "tls-server") != 0)
        return fail(TPKS_BAD_URI, "URI: attribute \"role\" must be tls-server");
    return keep_text(uri, value, &uri->selector.role);
}

static tpks_result set_credential(TPKS_URI *uri, const char *value)
{
    if (value[strspn(value, DIGITS)] != '\0' || strlen(value) > CREDENTIAL_DIGITS || *value == '0')
        return fail(TPKS_BAD_URI,
                    "URI: attribute \"credential\" must be the number of a credential: 1 to %d "
                    "decimal digits, the first not 0",
                    CREDENTIAL_DIGITS);
    return keep_text(uri, value, &uri->selector.credential);
}

static tpks_result set_ca(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.ca);
}

static tpks_result set_signer(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.signer);
}

static tpks_result set_owner(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.owner);
}

static tpks_result set_device(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.device);
}

static tpks_result set_cn(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.cn);
}

static tpks_result set_alias(TPKS_URI *uri, const char *value)
{
    return keep_text(uri, value, &uri->selector.alias);
}

static const struct attribute {
    const char *name;
    tpks_result (*set)(TPKS_URI *uri, const char *value);
} ATTRIBUTES[] = {
    {"type", set_type},
    {"keystore", set_keystore},
    {"id", set_id},
    {"serial", set_serial},
    {"fingerprint", set_fingerprint},
    {"spki", set_spki},
    {"role", set_role},
    {"credential", set_credential},
    {"ca", set_ca},
    {"signer", set_signer},
    {"owner", set_owner},
    {"device", set_device},
    {"cn", set_cn},
    {"alias", set_alias},
};
#define ATTRIBUTE_COUNT (sizeof(ATTRIBUTES) / sizeof(ATTRIBUTES[0]))

static tpks_result find_attribute(piece name, size_t *out)
{
    for (size_t i = 0; i < ATTRIBUTE_COUNT; i++)
        if (strlen(ATTRIBUTES[i].name) == name.size &&
            memcmp(ATTRIBUTES[i].name, name.text, name.size) == 0) {
            *out = i;
            return TPKS_OK;
        }
    return fail(
        TPKS_BAD_URI,
        "URI: unknown attribute \"%.*s\"; known are type, keystore, id, fingerprint, serial, spki, "
        "role, credential, ca, signer, owner, device, cn and alias",
        name.size > 40 ? 40 : (int)name.size, name.text);
}

/* One "attribute=value"; *seen has a bit for each one that was there before. */
static tpks_result parse_attribute(TPKS_URI *uri, piece in, unsigned *seen)
{
    const char *equals = memchr(in.text, '=', in.size);
    char what[64], value[VALUE_MAX];
    piece name = {in.text, in.size}, encoded;
    size_t i = 0;

    if (equals == NULL)
        return fail(TPKS_BAD_URI, "URI: after '?' and each '&' must stand attribute=value");
    name.size = (size_t)(equals - in.text);
    TRY(find_attribute(name, &i));
    snprintf(what, sizeof(what), "attribute \"%s\"", ATTRIBUTES[i].name);
    if ((*seen & 1u << i) != 0)
        return fail(TPKS_BAD_URI, "URI: %s is there twice: leave one", what);
    *seen |= 1u << i;
    encoded = (piece){equals + 1, in.size - name.size - 1};
    if (encoded.size == 0)
        return fail(TPKS_BAD_URI, "URI: %s has no value: give it one or leave it out", what);
    TRY(check_plain(encoded, what));
    TRY(decode(encoded, what, value, sizeof(value)));
    return ATTRIBUTES[i].set(uri, value);
}

static tpks_result parse_query(TPKS_URI *uri, const char *query)
{
    unsigned seen = 0;

    for (;;) {
        size_t size = strcspn(query, "&");

        TRY(parse_attribute(uri, (piece){query, size}, &seen));
        if (query[size] == '\0')
            return TPKS_OK;
        query += size + 1;
    }
}

static tpks_result parse_name(TPKS_URI *uri, piece in)
{
    if (in.size == 0)
        return TPKS_OK;
    if (memchr(in.text, '=', in.size) != NULL || memchr(in.text, '&', in.size) != NULL)
        return fail(TPKS_BAD_URI, "URI: attributes follow a '?', as in " SCHEME
                                  "//NAME?type=cert; in a name '=' is %%3D and '&' is %%26");
    TRY(check_plain(in, "the name"));
    TRY(decode(in, "the name", uri->name, sizeof(uri->name)));
    if (tpks_name_check(uri->name) != TPKS_OK)
        return fail_in(TPKS_BAD_URI, "URI");
    uri->selector.name = uri->name;
    return TPKS_OK;
}

static tpks_result parse(TPKS_URI *uri, const char *text)
{
    const char *rest = text + strlen(SCHEME);
    size_t size;

    if (strncmp(rest, "//", 2) == 0)
        rest += 2;
    if (strchr(rest, '#') != NULL)
        return fail(TPKS_BAD_URI, "URI: it has a fragment, which selects nothing here; a '#' in a "
                                  "name is %%23");
    size = strcspn(rest, "?");
    TRY(parse_name(uri, (piece){rest, size}));
    return rest[size] == '?' ? parse_query(uri, rest + size + 1) : TPKS_OK;
}

bool tpks_uri_is_ours(const char *text)
{
    size_t i = 0;

    while (SCHEME[i] != '\0' && text_lower(text[i]) == SCHEME[i])
        i++;
    return SCHEME[i] == '\0';
}

tpks_result tpks_uri_parse(const char *text, TPKS_URI **out)
{
    CRYPTO_SCOPE;
    TPKS_URI *uri;
    tpks_result result;

    if (!tpks_uri_is_ours(text))
        return fail(TPKS_BAD_URI, "URI: it must start with " SCHEME "//");
    if (strnlen(text, URI_MAX + 1) > URI_MAX)
        return fail(TPKS_BAD_URI, "URI: it is longer than %d bytes", URI_MAX);
    uri = OPENSSL_zalloc(sizeof(*uri));
    if (uri == NULL)
        return fail_memory();
    result = parse(uri, text);
    if (result == TPKS_OK)
        *out = uri;
    else
        tpks_uri_free(uri);
    return result;
}

void tpks_uri_free(TPKS_URI *uri)
{
    OPENSSL_free(uri);
}

const char *tpks_uri_keystore(const TPKS_URI *uri)
{
    return uri->keystore;
}

tpks_uri_type tpks_uri_type_of(const TPKS_URI *uri)
{
    return uri->type;
}

const tpks_selector *tpks_uri_selector(const TPKS_URI *uri)
{
    return &uri->selector;
}

bool tpks_uri_is_list(const TPKS_URI *uri)
{
    const tpks_selector *selector = &uri->selector;

    return selector->name == NULL && selector->id == NULL && selector->cert_sha256 == NULL &&
           selector->cert_sha1 == NULL && selector->spki_sha256 == NULL &&
           selector->serial == NULL && uri->text_count == 0;
}
