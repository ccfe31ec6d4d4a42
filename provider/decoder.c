/*
 * decoder.c - PEM stubs: key files that only say where the key is (provider-decoder(7))
 *
 * libcrypto runs decoders over every key file that any program reads. So they allocate nothing
 * before they have seen that the file is a stub, say "not mine" by success without an object, and
 * leave no error behind. A stub whose key does not load fails at once: success without an object
 * would make libcrypto try every other decoder, with a new question for a password by each.
 *
 * A stub in a file with our own label goes through a decoder from PEM to DER; one with the label
 * of a traditional private key goes through OpenSSL's. Both arrive at the decoder of their type.
 * Before version 3.2 OpenSSL sets up every decoder there is for every file, so each one costs every
 * program that reads keys. There the decoders RSA and EC serve the other types as well, which later
 * versions do not allow.
 */
#include "operations.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>

#include "error.h"
#include "key.h"
#include "load.h"

#define BEGIN "-----BEGIN "
#define BEGIN_STUB BEGIN TPKS_STUB_LABEL "-----"
#define END_STUB "-----END "
#define PEM_MAX (4 * TPKS_STUB_MAX)
/* Enough to see whether DER is a stub. */
#define GLANCE 5

static OSSL_FUNC_decoder_newctx_fn decoder_newctx;
static OSSL_FUNC_decoder_freectx_fn decoder_freectx;
static OSSL_FUNC_decoder_does_selection_fn decoder_does_selection;
static OSSL_FUNC_decoder_decode_fn pem_decode;
static OSSL_FUNC_decoder_export_object_fn decoder_export_object;

/* Decoders have no state of their own. */
static void *decoder_newctx(void *provctx)
{
    return provctx;
}

static void decoder_freectx(void *ctx)
{
    (void)ctx;
}

/* Certificates' public keys, which are read all the time, never get as far as this. */
static int decoder_does_selection(void *provctx, int selection)
{
    (void)provctx;
    return selection == 0 || (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
}

static void bio_free(BIO **bio)
{
    BIO_free(*bio);
}

static void memory_free(unsigned char **memory)
{
    OPENSSL_free(*memory);
}

static void text_free(char **text)
{
    OPENSSL_free(*text);
}

static void uri_free(TPKS_URI **uri)
{
    tpks_uri_free(*uri);
}

static void source_release(SOURCE **source)
{
    source_close(*source);
}

static void record_free(TPKS_RECORD **record)
{
    tpks_record_free(*record);
}

/*
 * Many programs ask for the password again, or give up cleanly, when this is the first error; after
 * any other they go on to try something else.
 */
static void raise_first(void)
{
    ERR_raise(ERR_LIB_PEM, PEM_R_BAD_PASSWORD_READ);
}

/* ---- from PEM to DER ----------------------------------------------------------------------- */

/* Is the next PEM block, whatever stands before it, a stub? Its first line is in `line` then. */
static bool next_is_stub(BIO *in, char *line, int size)
{
    while (BIO_gets(in, line, size) > 0)
        if (strncmp(line, BEGIN, strlen(BEGIN)) == 0)
            return strncmp(line, BEGIN_STUB, strlen(BEGIN_STUB)) == 0;
    return false;
}

/* The block's lines, so that libcrypto can parse them; its first one has been read. */
static BIO *copy_block(BIO *in, char *line, int size)
{
    BIO *block = BIO_new(BIO_s_mem());
    int length, total = 0;

    if (block == NULL)
        return NULL;
    BIO_puts(block, line);
    while (total < PEM_MAX && (length = BIO_gets(in, line, size)) > 0) {
        BIO_write(block, line, length);
        total += length;
        if (strncmp(line, END_STUB, strlen(END_STUB)) == 0)
            break;
    }
    return block;
}

/* Does OpenSSL keep what it has set up, so that many decoders cost nothing? */
static bool has_cache(void)
{
    return OPENSSL_version_major() > 3 || OPENSSL_version_minor() >= 2;
}

/* The decoder that serves a type where there is none of its name. */
static const char *family(const char *key_type)
{
    return strncmp(key_type, "RSA", strlen("RSA")) == 0 ? "RSA" : "EC";
}

static const char *decoder_for(const char *key_type)
{
    return has_cache() ? key_type : family(key_type);
}

static bool serves(const char *decoder, const char *key_type)
{
    return strcmp(decoder, key_type) == 0 || strcmp(decoder, family(key_type)) == 0;
}

static int emit_der(const tpks_stub *stub, unsigned char *der, size_t size, OSSL_CALLBACK *callback,
                    void *arg)
{
    int type = OSSL_OBJECT_PKEY;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &type),
                           OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE,
                                                            (char *)decoder_for(stub->key_type), 0),
                           OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_STRUCTURE,
                                                            (char *)"type-specific", 0),
                           OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_DATA, der, size),
                           OSSL_PARAM_construct_end()};

    return callback(params, arg);
}

static bool parse_block(const CONTEXT *context, BIO *block, unsigned char **der, long *size,
                        tpks_stub *stub)
{
    __attribute__((cleanup(text_free))) char *name = NULL;
    __attribute__((cleanup(text_free))) char *header = NULL;

    if (block == NULL || !PEM_read_bio(block, &name, &header, der, size)) {
        RAISE(context, TPKS_BAD_INPUT,
              "key stub: not well-formed PEM: write it again with "
              "trustpoint-keystore stub");
        return false;
    }
    return RAISE_RESULT(context, tpks_stub_decode(*der, (size_t)*size, stub)) == TPKS_OK;
}

static int decode_block(const CONTEXT *context, BIO *block, OSSL_CALLBACK *callback, void *arg)
{
    __attribute__((cleanup(memory_free))) unsigned char *der = NULL;
    long size = 0;
    tpks_stub stub;

    ERR_set_mark();
    raise_first();
    if (!errors_end(parse_block(context, block, &der, &size, &stub)))
        return 0;
    return emit_der(&stub, der, (size_t)size, callback, arg);
}

static int pem_decode(void *ctx, OSSL_CORE_BIO *core_bio, int selection, OSSL_CALLBACK *callback,
                      void *arg, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    KEEP_ERRNO;
    const CONTEXT *context = ctx;
    char line[256];
    __attribute__((cleanup(bio_free))) BIO *in =
        BIO_new_from_core_bio(context_libctx(context), core_bio);
    __attribute__((cleanup(bio_free))) BIO *block = NULL;

    (void)selection;
    (void)ask;
    (void)ask_arg;
    if (in == NULL || !next_is_stub(in, line, sizeof(line)))
        return 1;
    block = copy_block(in, line, sizeof(line));
    return decode_block(context, block, callback, arg);
}

/* ---- from DER to a key --------------------------------------------------------------------- */

/* How long the whole DER is, by its first bytes; 0 if it can't be a stub. */
static size_t whole_size(const unsigned char *der)
{
    const unsigned char *content = der;
    long length = 0;
    int tag = 0, class = 0, flags;

    ERR_set_mark();
    flags = ASN1_get_object(&content, &length, &tag, &class, TPKS_STUB_MAX);
    ERR_pop_to_mark();
    if ((flags & 0x80) != 0 || length <= 0)
        return 0;
    return (size_t)(content - der) + (size_t)length;
}

/* Reads one stub, no more and no less: programs check how much was consumed. 0 if it is none. */
static size_t read_stub(BIO *in, unsigned char *der)
{
    size_t size, more = 0;

    memset(der, 0, GLANCE * 2);
    if (BIO_read(in, der, GLANCE) != GLANCE || !tpks_stub_looks_like(der, GLANCE))
        return 0;
    size = whole_size(der);
    if (size <= GLANCE || size > TPKS_STUB_MAX ||
        !BIO_read_ex(in, der + GLANCE, size - GLANCE, &more) || more != size - GLANCE)
        return 0;
    return size;
}

static TPKS_RECORD *find_record(CONTEXT *context, const SOURCE *source, const TPKS_URI *uri,
                                const tpks_stub *stub)
{
    TPKS_RECORD *record = source_find(source, tpks_uri_selector(uri));

    if (record == NULL || strcmp(tpks_record_key_type(record), stub->key_type) == 0)
        return record;
    RAISE(context, TPKS_MISMATCH,
          "%s: the stub says %s, but the key in the keystore is %s: write the stub again with "
          "trustpoint-keystore stub",
          stub->uri, stub->key_type, tpks_record_key_type(record));
    tpks_record_free(record);
    return NULL;
}

static KEY *load_key(CONTEXT *context, const tpks_stub *stub, OSSL_PASSPHRASE_CALLBACK *ask,
                     void *ask_arg)
{
    __attribute__((cleanup(uri_free))) TPKS_URI *uri = NULL;
    __attribute__((cleanup(source_release))) SOURCE *source = NULL;
    __attribute__((cleanup(record_free))) TPKS_RECORD *record = NULL;

    if (RAISE_RESULT(context, tpks_uri_parse(stub->uri, &uri)) != TPKS_OK)
        return NULL;
    source = source_open(context, tpks_uri_keystore(uri));
    if (source == NULL)
        return NULL;
    source_set_ask(source, ask, ask_arg);
    record = find_record(context, source, uri, stub);
    return record == NULL ? NULL : source_private_key(source, record);
}

static int yield(CONTEXT *context, const tpks_stub *stub, OSSL_CALLBACK *callback, void *arg,
                 OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    KEY *key;

    ERR_set_mark();
    raise_first();
    key = load_key(context, stub, ask, ask_arg);
    errors_end(key != NULL);
    return key != NULL && key_yield(key, callback, arg);
}

static int decode(const char *name, CONTEXT *context, OSSL_CORE_BIO *core_bio,
                  OSSL_CALLBACK *callback, void *arg, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)
{
    KEEP_ERRNO;
    unsigned char der[TPKS_STUB_MAX + GLANCE];
    tpks_stub stub;
    size_t size;
    __attribute__((cleanup(bio_free))) BIO *in =
        BIO_new_from_core_bio(context_libctx(context), core_bio);

    size = in == NULL ? 0 : read_stub(in, der);
    if (size == 0 || tpks_stub_decode(der, size, &stub) != TPKS_OK || !serves(name, stub.key_type))
        return 1;
    return yield(context, &stub, callback, arg, ask, ask_arg);
}

/* ---- tables -------------------------------------------------------------------------------- */

/*
 * libcrypto would call this to move a key to another provider, without asking whether it is there.
 * Ours stay.
 */
static int decoder_export_object(void *ctx, const void *reference, size_t size,
                                 OSSL_CALLBACK *callback, void *arg)
{
    (void)ctx;
    (void)reference;
    (void)size;
    (void)callback;
    (void)arg;
    return 0;
}

static const OSSL_DISPATCH pem_functions[] = {
    {OSSL_FUNC_DECODER_NEWCTX, (passthrough_fn *)decoder_newctx},
    {OSSL_FUNC_DECODER_FREECTX, (passthrough_fn *)decoder_freectx},
    {OSSL_FUNC_DECODER_DECODE, (passthrough_fn *)pem_decode},
    {0, NULL},
};

#define DECODER(type, decoder)                                                                     \
    static OSSL_FUNC_decoder_decode_fn type##_decode;                                              \
    static int type##_decode(void *ctx, OSSL_CORE_BIO *in, int selection, OSSL_CALLBACK *callback, \
                             void *arg, OSSL_PASSPHRASE_CALLBACK *ask, void *ask_arg)              \
    {                                                                                              \
        (void)selection;                                                                           \
        return decode(decoder, ctx, in, callback, arg, ask, ask_arg);                              \
    }                                                                                              \
    static const OSSL_DISPATCH type##_functions[] = {                                              \
        {OSSL_FUNC_DECODER_NEWCTX, (passthrough_fn *)decoder_newctx},                              \
        {OSSL_FUNC_DECODER_FREECTX, (passthrough_fn *)decoder_freectx},                            \
        {OSSL_FUNC_DECODER_DOES_SELECTION, (passthrough_fn *)decoder_does_selection},              \
        {OSSL_FUNC_DECODER_DECODE, (passthrough_fn *)type##_decode},                               \
        {OSSL_FUNC_DECODER_EXPORT_OBJECT, (passthrough_fn *)decoder_export_object},                \
        {0, NULL},                                                                                 \
    };

DECODER(rsa, "RSA")
DECODER(rsa_pss, "RSA-PSS")
DECODER(ec, "EC")
DECODER(ed25519, "ED25519")
DECODER(ed448, "ED448")

/*
 * "type-specific" is what libcrypto asks for where a file has no PKCS#8, so other private keys do
 * not come here.
 */
#define PEM_TO_DER PROPERTIES ",input=pem"
#define DER_TO_KEY PROPERTIES ",input=der,structure=type-specific"

const OSSL_ALGORITHM *decoder_algorithms(void)
{
    static const OSSL_ALGORITHM few[] = {
        {"DER", PEM_TO_DER, pem_functions, NULL},
        {NAMES_RSA, DER_TO_KEY, rsa_functions, NULL},
        {NAMES_EC, DER_TO_KEY, ec_functions, NULL},
        {NULL, NULL, NULL, NULL},
    };
    static const OSSL_ALGORITHM all[] = {
        {"DER", PEM_TO_DER, pem_functions, NULL},
        {NAMES_RSA, DER_TO_KEY, rsa_functions, NULL},
        {NAMES_RSA_PSS, DER_TO_KEY, rsa_pss_functions, NULL},
        {NAMES_EC, DER_TO_KEY, ec_functions, NULL},
        {NAMES_ED25519, DER_TO_KEY, ed25519_functions, NULL},
        {NAMES_ED448, DER_TO_KEY, ed448_functions, NULL},
        {NULL, NULL, NULL, NULL},
    };

    return has_cache() ? all : few;
}
