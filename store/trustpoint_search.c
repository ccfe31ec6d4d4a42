/* trustpoint_search.c - selectors to statements over Trustpoint's tables */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/crypto.h>

#include "error.h"
#include "trustpoint.h"

/* ---- statements, put together from fixed text, values apart ---- */

static void append(trustpoint_search *s, const char *text)
{
    OPENSSL_strlcat(s->sql, text, sizeof(s->sql));
}

static size_t add_value(trustpoint_search *s, tpks_value value)
{
    s->values[s->count++] = value;
    return s->count;
}

static void append_parameter(trustpoint_search *s, size_t number)
{
    char text[16];

    snprintf(text, sizeof(text), "$%zu", number);
    append(s, text);
}

/* The first condition follows WHERE, unless the statement has one already. */
static void start_condition(trustpoint_search *s, bool *first)
{
    append(s, *first ? " WHERE " : " AND ");
    *first = false;
}

static void where(trustpoint_search *s, bool *first, const char *before, tpks_value value,
                  const char *after)
{
    start_condition(s, first);
    append(s, before);
    append_parameter(s, add_value(s, value));
    append(s, after);
}

/* Credentials by one of their names. */
static void where_named(trustpoint_search *s, bool *first, const trustpoint_condition *by,
                        const char *name)
{
    if (by->before == NULL) {
        s->nothing = true;
        return;
    }
    start_condition(s, first);
    append(s, "c.id IN (");
    append(s, by->before);
    append_parameter(s, add_value(s, value_text(name)));
    append(s, by->after);
    append(s, ")");
}

/* Numbers of certificates, each by a column of the certificate's own. */
static void where_certificate(trustpoint_search *s, bool *first, const char *column,
                              tpks_value value)
{
    start_condition(s, first);
    append(s, "c.certificate_id IN (SELECT x.id FROM pki_certificatemodel x WHERE x.");
    append(s, column);
    append(s, " = ");
    append_parameter(s, add_value(s, value));
    append(s, ")");
}

/* ---- values as Trustpoint writes them ---- */

static const char *upper_hex(trustpoint_search *s, const unsigned char *data, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = s->texts[s->text_count++];

    if (size > (sizeof(s->texts[0]) - 1) / 2) {
        s->nothing = true; /* no column of Trustpoint's has that much */
        size = 0;
    }
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * size] = '\0';
    return out;
}

/* Without leading zeros, so perhaps an odd number of digits. */
static const char *serial_text(trustpoint_search *s, const unsigned char *serial, size_t size)
{
    const char *text = upper_hex(s, serial, size);

    if (size == 0)
        return "0";
    return *text == '0' && text[1] != '\0' ? text + 1 : text;
}

static tpks_value uuid_value(trustpoint_search *s, const unsigned char uuid[TPKS_ID_SIZE])
{
    char *text = s->texts[s->text_count++];

    for (size_t i = 0; i < TPKS_ID_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", uuid[i]); /* SQLite has them so; PostgreSQL takes it */
    return value_text(text);
}

/* Ids of credentials are their numbers; those of managed keys have their version in the middle. */
static bool is_credential_id(const unsigned char id[TPKS_ID_SIZE], uint64_t *number)
{
    static const unsigned char zeros[8];

    *number = 0;
    for (size_t i = 8; i < TPKS_ID_SIZE; i++)
        *number = *number << 8 | id[i];
    return memcmp(id, zeros, sizeof(zeros)) == 0;
}

/* ---- names ---- */

static bool has_prefix(const char *name, const char *prefix, const char **rest)
{
    size_t size = strlen(prefix);

    *rest = name + size;
    return strncmp(name, prefix, size) == 0;
}

static bool read_number(const char *text, uint64_t *number)
{
    char *end = NULL;

    if (*text < '1' || *text > '9' || strlen(text) > 18)
        return false;
    *number = strtoull(text, &end, 10);
    return *end == '\0';
}

static void where_device(trustpoint_search *s, bool *first, const struct trustpoint_tables *tables,
                         const char *rest)
{
    const char *slash = strchr(rest, '/');

    if (slash == NULL || (size_t)(slash - rest) >= sizeof(s->device)) {
        s->nothing = true;
        return;
    }
    memcpy(s->device, rest, (size_t)(slash - rest));
    s->device[slash - rest] = '\0';
    where_named(s, first, &tables->by_device, s->device);
    where(s, first, "ic.common_name = ", value_text(slash + 1), "");
}

static void where_active_tls(trustpoint_search *s, bool *first)
{
    start_condition(s, first);
    append(s, "c.id = (SELECT t.credential_id FROM"
              " pki_activetrustpointtlsservercredentialmodel t WHERE t.id = 1)");
}

static void where_canonical(trustpoint_search *s, bool *first,
                            const struct trustpoint_tables *tables, const char *name)
{
    const char *rest = NULL;
    uint64_t number = 0;

    if (strcmp(name, TRUSTPOINT_TLS) == 0)
        where_active_tls(s, first);
    else if (has_prefix(name, TRUSTPOINT_CA, &rest))
        where_named(s, first, &tables->by_ca, rest);
    else if (has_prefix(name, TRUSTPOINT_SIGNER, &rest))
        where_named(s, first, &tables->by_signer, rest);
    else if (has_prefix(name, TRUSTPOINT_OWNER, &rest))
        where_named(s, first, &tables->by_owner, rest);
    else if (has_prefix(name, TRUSTPOINT_DEVICE, &rest))
        where_device(s, first, tables, rest);
    else if (has_prefix(name, TRUSTPOINT_CREDENTIAL, &rest) && read_number(rest, &number))
        where(s, first, "c.id = ", value_integer(number), "");
    else
        s->nothing = true;
}

/* Any of the names that people know. */
static void where_bare(trustpoint_search *s, bool *first, const struct trustpoint_tables *tables,
                       const char *name)
{
    const trustpoint_condition *all[] = {&tables->by_ca,     &tables->by_signer, &tables->by_owner,
                                         &tables->by_device, &tables->by_domain, &tables->by_alias};
    size_t number = add_value(s, value_text(name));
    const char *separator = "c.id IN (";

    start_condition(s, first);
    for (size_t i = 0; i < COUNT(all); i++) {
        if (all[i]->before == NULL)
            continue;
        append(s, separator);
        append(s, all[i]->before);
        append_parameter(s, number);
        append(s, all[i]->after);
        separator = " UNION ";
    }
    append(s, ")");
}

/* ---- the whole ---- */

static void where_certificates(trustpoint_search *s, bool *first, const tpks_selector *by)
{
    if (by->cert_sha256 != NULL)
        where_certificate(s, first, "sha256_fingerprint",
                          value_text(upper_hex(s, by->cert_sha256, SHA256_SIZE)));
    if (by->subject != NULL)
        where_certificate(s, first, "subject_public_bytes",
                          value_text(upper_hex(s, by->subject, by->subject_size)));
    if (by->issuer != NULL)
        where_certificate(s, first, "issuer_public_bytes",
                          value_text(upper_hex(s, by->issuer, by->issuer_size)));
    if (by->serial != NULL)
        where_certificate(s, first, "serial_number",
                          value_text(serial_text(s, by->serial, by->serial_size)));
}

static void where_id(trustpoint_search *s, bool *first, const unsigned char id[TPKS_ID_SIZE])
{
    uint64_t number = 0;

    if (is_credential_id(id, &number))
        where(s, first, "c.id = ", value_integer(number), "");
    else
        s->nothing = true;
}

static void where_cn(trustpoint_search *s, bool *first, const char *cn)
{
    size_t number = add_value(s, value_text(cn));

    start_condition(s, first);
    append(s, "(ic.common_name = ");
    append_parameter(s, number);
    append(s, " OR cert.common_name = ");
    append_parameter(s, number);
    append(s, ")");
}

/* What looks like a UUID may be another key's alias. */
static void where_alias(trustpoint_search *s, bool *first, const struct trustpoint_tables *tables,
                        const char *alias)
{
    unsigned char uuid[TPKS_ID_SIZE];

    if (tables->keys != TRUSTPOINT_KEYS_MANAGED || !trustpoint_uuid(alias, uuid)) {
        where_named(s, first, &tables->by_alias, alias);
        return;
    }
    where(s, first,
          "c.id IN (SELECT c4.id FROM pki_credentialmodel c4 WHERE c4.managed_private_key_id = ",
          uuid_value(s, uuid), " UNION ");
    append(s, tables->by_alias.before);
    append_parameter(s, add_value(s, value_text(alias)));
    append(s, tables->by_alias.after);
    append(s, ")");
}

static void where_names(trustpoint_search *s, bool *first, const struct trustpoint_tables *tables,
                        const tpks_selector *by, trustpoint_reading reading)
{
    uint64_t number = 0;

    if (by->name != NULL && reading == TRUSTPOINT_CANONICAL)
        where_canonical(s, first, tables, by->name);
    else if (by->name != NULL)
        where_bare(s, first, tables, by->name);
    if (by->role != NULL)
        where_active_tls(s, first);
    if (by->credential != NULL && !read_number(by->credential, &number))
        s->nothing = true;
    else if (by->credential != NULL)
        where(s, first, "c.id = ", value_integer(number), "");
    if (by->ca != NULL)
        where_named(s, first, &tables->by_ca, by->ca);
    if (by->signer != NULL)
        where_named(s, first, &tables->by_signer, by->signer);
    if (by->owner != NULL)
        where_named(s, first, &tables->by_owner, by->owner);
    if (by->device != NULL)
        where_named(s, first, &tables->by_device, by->device);
    if (by->cn != NULL)
        where_cn(s, first, by->cn);
    if (by->alias != NULL)
        where_alias(s, first, tables, by->alias);
}

/* Nothing is wanted but what Trustpoint keeps no column of. */
static bool is_scan(const tpks_selector *by)
{
    static const tpks_selector nothing;
    tpks_selector rest = *by;

    rest.cert_sha1 = NULL;
    rest.spki_sha256 = NULL;
    return memcmp(&rest, &nothing, sizeof(rest)) == 0;
}

tpks_result trustpoint_search_credentials(const struct trustpoint_tables *tables,
                                          const tpks_selector *by, trustpoint_reading reading,
                                          trustpoint_search *out)
{
    bool first = true;

    append(out, by == NULL || is_scan(by) ? tables->select_all : tables->select_some);
    if (by != NULL) {
        where_names(out, &first, tables, by, reading);
        where_certificates(out, &first, by);
        if (by->id != NULL)
            where_id(out, &first, by->id);
    }
    append(out, " ORDER BY c.id");
    return TPKS_OK;
}

/* A key without a certificate has only its own names. */
static bool may_be_key(const tpks_selector *by)
{
    return by->cert_sha256 == NULL && by->cert_sha1 == NULL && by->subject == NULL &&
           by->issuer == NULL && by->serial == NULL && by->role == NULL && by->credential == NULL &&
           by->ca == NULL && by->signer == NULL && by->owner == NULL && by->device == NULL &&
           by->cn == NULL;
}

static void where_key_name(trustpoint_search *s, const char *name, trustpoint_reading reading)
{
    const char *alias = name;
    unsigned char uuid[TPKS_ID_SIZE];
    bool first = false;

    if (reading == TRUSTPOINT_CANONICAL && !has_prefix(name, TRUSTPOINT_KEY, &alias)) {
        s->nothing = true;
        return;
    }
    bool is_uuid = trustpoint_uuid(alias, uuid);
    where(s, &first, is_uuid ? "(m.alias = " : "m.alias = ", value_text(alias), "");
    if (!is_uuid)
        return;
    append(s, " OR m.id = ");
    append_parameter(s, add_value(s, uuid_value(s, uuid)));
    append(s, ")");
}

tpks_result trustpoint_search_keys(const struct trustpoint_tables *tables, const tpks_selector *by,
                                   trustpoint_reading reading, trustpoint_search *out)
{
    uint64_t number = 0;
    bool first = false;

    out->nothing = tables->select_keys == NULL || (by != NULL && !may_be_key(by));
    if (out->nothing)
        return TPKS_OK;
    append(out, tables->select_keys);
    if (by != NULL && by->name != NULL)
        where_key_name(out, by->name, reading);
    if (by != NULL && by->alias != NULL)
        where_key_name(out, by->alias, TRUSTPOINT_BARE);
    if (by != NULL && by->id != NULL && is_credential_id(by->id, &number))
        out->nothing = true;
    else if (by != NULL && by->id != NULL)
        where(out, &first, "m.id = ", uuid_value(out, by->id), "");
    append(out, " ORDER BY m.alias");
    return TPKS_OK;
}
