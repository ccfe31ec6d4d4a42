/*
 * hsm_key_make.c - making key pairs in a token, destroying and listing them
 */
#include "hsm_key_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <openssl/objects.h>
#include <openssl/x509.h>

#define POINT_MAX (2 * 66 + 1) /* an uncompressed point of P-521 */
#define LABEL_MAX 512
#define ID_MAX 256 /* bytes of a CKA_ID that others chose; digests and texts are usual */

/* ---- what is wanted -------------------------------------------------------------------------- */

static const struct curve {
    const char *name;
    int nid;
    size_t point; /* bytes of an uncompressed point */
} curves[] = {{"P-256", NID_X9_62_prime256v1, 65},
              {"P-384", NID_secp384r1, 97},
              {"P-521", NID_secp521r1, 133}};

static const struct curve *curve_find(const char *name)
{
    for (size_t i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
        if (strcasecmp(curves[i].name, name) == 0)
            return &curves[i];
    return NULL;
}

static bool parse_bits(const char *text, unsigned *bits)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    *bits = (unsigned)value;
    return *text >= '1' && *text <= '9' && *end == '\0' && value >= 2048 && value <= 8192 &&
           value % 8 == 0;
}

tpks_result hsm_key_spec_parse(const char *text, hsm_key_spec *out)
{
    const struct curve *curve = strncasecmp(text, "ec:", 3) == 0 ? curve_find(text + 3) : NULL;

    if (curve != NULL)
        out->curve = curve->name;
    out->rsa = strncasecmp(text, "rsa:", 4) == 0 && parse_bits(text + 4, &out->bits);
    if (curve != NULL || out->rsa)
        return TPKS_OK;
    return fail(TPKS_BAD_INPUT,
                "a token can't be asked for a key of type \"%.40s\": use rsa:2048 to rsa:8192, "
                "ec:P-256, ec:P-384 or ec:P-521",
                text);
}

/* ---- making ---------------------------------------------------------------------------------- */

struct pair {
    CK_OBJECT_HANDLE public, private;
};

struct making_pair {
    const hsm_key_spec *spec;
    EVP_PKEY *key; /* the public half as the token tells it */
    bool readable; /* the private half could be read from the token */
    struct key_public public;
    struct key_proof proof;
};

static CK_ATTRIBUTE flag(CK_ATTRIBUTE_TYPE type, bool value)
{
    static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

    return (CK_ATTRIBUTE){type, value ? &yes : &no, sizeof(CK_BBOOL)};
}

/* What the key may do. `strict` spells out what it may not: not every module takes that. */
static CK_ULONG private_template(const hsm_key_spec *spec, bool strict, CK_ATTRIBUTE out[10])
{
    CK_ULONG count = 0;

    out[count++] = flag(CKA_TOKEN, true);
    out[count++] = flag(CKA_PRIVATE, true);
    out[count++] = flag(CKA_SENSITIVE, true);
    out[count++] = flag(CKA_EXTRACTABLE, false);
    out[count++] = flag(CKA_SIGN, true);
    out[count++] = (CK_ATTRIBUTE){CKA_ID, (void *)spec->cka_id, CKA_ID_SIZE};
    out[count++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)spec->label, strlen(spec->label)};
    if (spec->rsa && (strict || spec->decrypts))
        out[count++] = flag(CKA_DECRYPT, spec->decrypts);
    if (strict)
        out[count++] = flag(spec->rsa ? CKA_UNWRAP : CKA_DERIVE, false);
    return count;
}

static CK_RV generate_pair(struct hsm_connection *connection, const hsm_key_spec *spec, bool strict,
                           CK_ATTRIBUTE *parameter, CK_ULONG parameters, struct pair *pair)
{
    CK_MECHANISM mechanism = {spec->rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE private[10], public[8] = {
                                  flag(CKA_TOKEN, true),
                                  flag(CKA_VERIFY, true),
                                  {CKA_ID, (void *)spec->cka_id, CKA_ID_SIZE},
                                  {CKA_LABEL, (void *)spec->label, strlen(spec->label)},
                              };
    CK_ULONG count = 4;

    for (CK_ULONG i = 0; i < parameters; i++)
    public[count++] = parameter[i];
    if (spec->decrypts)
    public[count++] = flag(CKA_ENCRYPT, true);
    return connection->module->functions->C_GenerateKeyPair(
        connection->session, &mechanism, public, count, private,
        private_template(spec, strict, private), &pair->public, &pair->private);
}

static CK_RV generate_rsa(struct hsm_connection *connection, const hsm_key_spec *spec, bool strict,
                          struct pair *pair)
{
    CK_ULONG bits = spec->bits;
    unsigned char exponent[] = {1, 0, 1};
    CK_ATTRIBUTE parameters[] = {{CKA_MODULUS_BITS, &bits, sizeof(bits)},
                                 {CKA_PUBLIC_EXPONENT, exponent, sizeof(exponent)}};

    return generate_pair(connection, spec, strict, parameters, 2, pair);
}

static CK_RV generate_ec(struct hsm_connection *connection, const hsm_key_spec *spec, bool strict,
                         struct pair *pair)
{
    unsigned char *oid = NULL;
    int size = i2d_ASN1_OBJECT(OBJ_nid2obj(curve_find(spec->curve)->nid), &oid);
    CK_ATTRIBUTE parameter = {CKA_EC_PARAMS, oid, (CK_ULONG)size};

    if (size <= 0)
        return CKR_HOST_MEMORY;
    CK_RV rv = generate_pair(connection, spec, strict, &parameter, 1, pair);
    OPENSSL_free(oid);
    return rv;
}

static CK_RV generate(struct hsm_connection *connection, const hsm_key_spec *spec,
                      struct pair *pair)
{
    SIGNALS_BLOCKED; /* killed here, SoftHSM keeps half an object or loses the token */
    CK_RV(*make)
    (struct hsm_connection *, const hsm_key_spec *, bool, struct pair *) =
        spec->rsa ? generate_rsa : generate_ec;
    CK_RV rv = make(connection, spec, true, pair);

    return ckr_result(rv) == TPKS_UNSUPPORTED ? make(connection, spec, false, pair) : rv;
}

/* ---- the public half ------------------------------------------------------------------------- */

static EVP_PKEY *ec_from_point(const struct curve *curve, const unsigned char *point, size_t size)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(hsm_libctx(), "EC", NULL);
    EVP_PKEY *key = NULL;
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)curve->name, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point, size),
        OSSL_PARAM_construct_end()};

    if (ctx != NULL && EVP_PKEY_fromdata_init(ctx) == 1)
        (void)!EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)params);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* CKA_EC_POINT is the DER of an OCTET STRING; some modules give what is in it. The size tells. */
static EVP_PKEY *ec_from_attribute(const struct curve *curve, const unsigned char *value,
                                   size_t size)
{
    const unsigned char *at = value;

    if (size == curve->point)
        return ec_from_point(curve, value, size);
    ASN1_OCTET_STRING *inner = d2i_ASN1_OCTET_STRING(NULL, &at, (long)size);
    EVP_PKEY *key = NULL;
    if (inner != NULL && (size_t)ASN1_STRING_length(inner) == curve->point)
        key = ec_from_point(curve, ASN1_STRING_get0_data(inner), curve->point);
    ASN1_OCTET_STRING_free(inner);
    return key;
}

static CK_RV ec_read_public(struct hsm_connection *connection, const hsm_key_spec *spec,
                            CK_OBJECT_HANDLE object, EVP_PKEY **key)
{
    unsigned char value[POINT_MAX + 3];
    CK_ATTRIBUTE point = {CKA_EC_POINT, value, sizeof(value)};
    CK_RV rv =
        connection->module->functions->C_GetAttributeValue(connection->session, object, &point, 1);

    if (rv == CKR_OK)
        *key = ec_from_attribute(curve_find(spec->curve), value, point.ulValueLen);
    return rv;
}

/* ---- all together ---------------------------------------------------------------------------- */

static CK_RV read_and_prove(struct hsm_connection *connection, struct making_pair *job,
                            const struct pair *pair)
{
    unsigned char *spki = NULL;
    CK_RV rv = job->spec->rsa ? rsa_read_public(connection, pair->public, &job->key)
                              : ec_read_public(connection, job->spec, pair->public, &job->key);

    job->readable = !flag_is(connection, pair->private, CKA_SENSITIVE, CK_TRUE) ||
                    !flag_is(connection, pair->private, CKA_EXTRACTABLE, CK_FALSE);
    if (rv != CKR_OK || job->key == NULL || job->readable)
        return rv;
    int size = i2d_PUBKEY(job->key, &spki);
    rv = size > 0 && key_public_set(&job->public, spki, (size_t)size) == TPKS_OK ? CKR_OK
                                                                                 : CKR_HOST_MEMORY;
    OPENSSL_free(spki);
    return rv == CKR_OK ? key_proof_take(connection, pair->private, &job->public, &job->proof) : rv;
}

static bool is_good(const struct making_pair *job)
{
    return job->key != NULL && !job->readable && job->public.key != NULL &&
           key_proof_holds(&job->public, &job->proof);
}

/* On failure nothing is left on the token. The caller holds the keeper session. */
static CK_RV make_pair(struct hsm_connection *connection, struct making_pair *job)
{
    struct pair pair = {0, 0};
    CK_RV rv = generate(connection, job->spec, &pair);

    if (rv == CKR_OK)
        rv = read_and_prove(connection, job, &pair);
    if (rv != CKR_OK || !is_good(job))
        (void)!destroy_by_id(connection, job->spec->cka_id);
    return rv;
}

static tpks_result make(HSM *hsm, struct making_pair *job)
{
    CK_RV rv;

    TRY(check_id_is_free(hsm, job->spec->cka_id));
    {
        HOLD(&hsm->connection->keeper);
        rv = make_pair(hsm->connection, job);
    }
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "making a key pair", rv);
    if (job->readable)
        return fail(TPKS_UNSUPPORTED,
                    "HSM token \"%s\" (%s): it makes keys that can be read from it: import the key "
                    "into the database instead",
                    hsm->label, hsm_module_name(hsm));
    if (!is_good(job))
        return fail(TPKS_UNSUPPORTED,
                    "HSM token \"%s\" (%s): the public key that it tells is not the one of the key "
                    "that it made",
                    hsm->label, hsm_module_name(hsm));
    make_durable();
    return TPKS_OK;
}

tpks_result hsm_key_make(HSM *hsm, const hsm_key_spec *spec, unsigned char **spki,
                         size_t *spki_size)
{
    HSM_GUARD guard;
    struct making_pair job = {.spec = spec};

    *spki = NULL; /* i2d_PUBKEY() would write to what it points to */
    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    tpks_result result = make(hsm, &job);
    if (result == TPKS_OK) {
        int size = i2d_PUBKEY(job.key, spki);
        *spki_size = (size_t)size;
        if (size <= 0)
            result = fail_memory();
    }
    EVP_PKEY_free(job.key);
    key_public_clear(&job.public);
    return result;
}

/* ---- destroying ------------------------------------------------------------------------------ */

struct destroy_job {
    struct keeper_job base;
    CK_KEY_TYPE type;
    const unsigned char *id;
    size_t id_size;
};

static CK_RV destroy_half(struct hsm_connection *connection, const struct destroy_job *job,
                          CK_OBJECT_CLASS class)
{
    CK_KEY_TYPE type = job->type;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof(class)},
                               {CKA_TOKEN, &yes, sizeof(yes)},
                               {CKA_KEY_TYPE, &type, sizeof(type)},
                               {CKA_ID, (void *)job->id, job->id_size}};

    return connection_destroy(connection, template, 4);
}

static CK_RV destroy_run(struct hsm_connection *connection, struct keeper_job *base)
{
    const struct destroy_job *job = (struct destroy_job *)base;
    SIGNALS_BLOCKED;
    CK_RV rv = destroy_half(connection, job, CKO_PRIVATE_KEY);

    return rv == CKR_OK ? destroy_half(connection, job, CKO_PUBLIC_KEY) : rv;
}

tpks_result hsm_key_destroy(HSM *hsm, bool rsa, const unsigned char *id, size_t id_size)
{
    HSM_GUARD guard;
    struct destroy_job job = {
        .base.run = destroy_run, .type = rsa ? CKK_RSA : CKK_EC, .id = id, .id_size = id_size};
    CK_RV rv;

    TRY(hsm_enter(&guard, hsm->process));
    TRY(check_may_write(hsm));
    TRY(keeper_run(hsm->connection, &hsm->caller, &job.base, &rv));
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "destroying the key", rv);
    make_durable();
    return TPKS_OK;
}

/* ---- listing --------------------------------------------------------------------------------- */

#define LIST_MAX 4096

struct list_job {
    struct keeper_job base;
    CK_OBJECT_HANDLE *objects;
    CK_ULONG count;
};

static CK_RV list_run(struct hsm_connection *connection, struct keeper_job *base)
{
    struct list_job *job = (struct list_job *)base;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE template = {CKA_CLASS, &class, sizeof(class)};

    return connection_search(connection, &template, 1, job->objects, LIST_MAX, &job->count);
}

/* What others call a key. */
struct names {
    unsigned char id[ID_MAX];
    char label[LABEL_MAX];
    CK_ULONG id_size;
};

/* An attribute that the object has not got is empty. CKR_BUFFER_TOO_SMALL: it does not fit. */
static CK_RV read_value(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                        CK_ATTRIBUTE_TYPE type, void *value, CK_ULONG room, CK_ULONG *size)
{
    CK_ATTRIBUTE attribute = {type, value, room};
    CK_RV rv = connection->module->functions->C_GetAttributeValue(connection->session, object,
                                                                  &attribute, 1);

    *size = rv == CKR_OK ? attribute.ulValueLen : 0;
    if (rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE)
        return CKR_OK;
    return *size > room ? CKR_BUFFER_TOO_SMALL : rv;
}

/* The id is read only when the label starts with `prefix`. */
static CK_RV read_names(struct hsm_connection *connection, CK_OBJECT_HANDLE object,
                        const char *prefix, struct names *names, bool *meant)
{
    CK_ULONG size = 0;
    HOLD(&connection->keeper);
    CK_RV rv =
        read_value(connection, object, CKA_LABEL, names->label, sizeof(names->label) - 1, &size);

    *meant = false;
    if (rv != CKR_OK)
        return rv;
    names->label[size] = '\0';
    if (strncmp(names->label, prefix, strlen(prefix)) != 0)
        return CKR_OK;
    *meant = true;
    return read_value(connection, object, CKA_ID, names->id, sizeof(names->id), &names->id_size);
}

static tpks_result tell_all(HSM *hsm, const char *prefix, const struct list_job *job,
                            hsm_key_fn *each, void *arg)
{
    struct names names;
    CK_ULONG too_long = 0;
    bool meant = false;

    for (CK_ULONG i = 0; i < job->count; i++) {
        CK_RV rv = read_names(hsm->connection, job->objects[i], prefix, &names, &meant);
        if (rv == CKR_BUFFER_TOO_SMALL)
            too_long++;
        else if (rv != CKR_OK)
            return fail_ckr(ckr_result(rv), hsm->connection, "reading the names of a key", rv);
        else if (meant)
            TRY(each(arg, names.id, names.id_size, names.label));
    }
    if (too_long == 0)
        return TPKS_OK;
    return fail(TPKS_UNSUPPORTED,
                "HSM token \"%s\" (%s): %lu of its private keys have a CKA_ID of more than %d "
                "bytes or a CKA_LABEL of more than %d, so that they can't be told apart: shorten "
                "it with the token's own tool",
                hsm->label, hsm_module_name(hsm), (unsigned long)too_long, ID_MAX, LABEL_MAX - 1);
}

static tpks_result list(HSM *hsm, const char *prefix, struct list_job *job, hsm_key_fn *each,
                        void *arg)
{
    CK_RV rv;

    TRY(keeper_run(hsm->connection, &hsm->caller, &job->base, &rv));
    if (rv != CKR_OK)
        return fail_ckr(ckr_result(rv), hsm->connection, "listing the keys", rv);
    return tell_all(hsm, prefix, job, each, arg);
}

tpks_result hsm_each_key(HSM *hsm, const char *prefix, hsm_key_fn *each, void *arg)
{
    HSM_GUARD guard;
    struct list_job job = {.base.run = list_run};

    TRY(hsm_enter(&guard, hsm->process));
    job.objects = calloc(LIST_MAX, sizeof(*job.objects));
    if (job.objects == NULL)
        return fail_memory();
    tpks_result result = list(hsm, prefix, &job, each, arg);
    free(job.objects);
    return result;
}
