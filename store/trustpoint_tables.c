/*
 * trustpoint_tables.c - which release wrote a database, and what it calls its tables
 *
 * A database is purely of one generation: Trustpoint has no migration from one to the next but from
 * 0.3 to 0.4. The generation is known by its tables, never by a version in a row.
 *
 * Every join goes over a primary key or a unique column, so that each credential is one row, and
 * every condition begins at an index that Django makes (unique columns and foreign keys have one).
 */
#include "error.h"
#include "trustpoint.h"

#define ACTIVE_TLS "pki_activetrustpointtlsservercredentialmodel"
#define NONE "CAST(NULL AS VARCHAR(1))"
#define NONE_3 NONE ", " NONE ", " NONE

/* ---- columns and joins, in the order of trustpoint_row ---- */

/* A key in the clear is asked for when it is due: here its beginning tells that it is one. */
#define PRIVATE_KEY                                                                                \
    "CASE WHEN substr(c.private_key, 1, 11) = '-----BEGIN ' THEN '-----BEGIN '"                    \
    " ELSE c.private_key END"

#define CREDENTIAL_COLUMNS                                                                         \
    "c.id, c.credential_type, " PRIVATE_KEY ", CAST(c.created_at AS VARCHAR(40)),"                 \
    " c.certificate_id, cert.cert_pem, a.id, ca.unique_name"

/* `repeats`: 1 when the device has several credentials of that name, else 0. */
#define DEVICE_COLUMNS(repeats)                                                                    \
    "d.common_name, ic.common_name, CASE WHEN " repeats " THEN 1 ELSE 0 END"

#define CREDENTIAL_JOINS(ca, issued)                                                               \
    " FROM pki_credentialmodel c"                                                                  \
    " LEFT JOIN pki_certificatemodel cert ON cert.id = c.certificate_id"                           \
    " LEFT JOIN " ACTIVE_TLS " a ON a.id = 1 AND a.credential_id = c.id"                           \
    " LEFT JOIN " ca " ca ON ca.credential_id = c.id"                                              \
    " LEFT JOIN " issued " ic ON ic.credential_id = c.id"                                          \
    " LEFT JOIN devices_devicemodel d ON d.id = ic.device_id"

#define SIGNER_JOIN " LEFT JOIN signer_signermodel s ON s.credential_id = c.id"

/* Of one credential: looks at those of the same device only. */
#define REPEATS_SOME(issued)                                                                       \
    "EXISTS (SELECT 1 FROM " issued " i2 WHERE i2.device_id = ic.device_id"                        \
    " AND i2.common_name = ic.common_name AND i2.id <> ic.id)"
/* Of all credentials: counted once. */
#define REPEATS_ALL "rep.device_id IS NOT NULL"
#define REPEATS_ALL_JOIN(issued)                                                                   \
    " LEFT JOIN (SELECT device_id, common_name FROM " issued " GROUP BY device_id, common_name"    \
    " HAVING count(*) > 1) rep ON rep.device_id = ic.device_id"                                    \
    " AND rep.common_name = ic.common_name"

/* 0.5 and later: an owner may have several credentials, of which the newest counts. */
#define REMOTE "pki_remoteissuedcredentialmodel"
#define OWNER_JOIN_REMOTE                                                                          \
    " LEFT JOIN " REMOTE " r ON r.credential_id = c.id AND r.issued_credential_type = 2"           \
    " AND NOT EXISTS (SELECT 1 FROM " REMOTE " n WHERE n.owner_credential_id ="                    \
    " r.owner_credential_id AND n.issued_credential_type = 2 AND (n.created_at > r.created_at"     \
    " OR (n.created_at = r.created_at AND n.id > r.id)))"                                          \
    " LEFT JOIN pki_ownercredentialmodel o ON o.id = r.owner_credential_id"
#define OWNER_JOIN_DIRECT " LEFT JOIN pki_ownercredentialmodel o ON o.credential_id = c.id"

/* 0.4, 0.5. */
#define LABELLED_COLUMNS "k.key_label, k.token_label, " NONE
#define LABELLED_JOIN " LEFT JOIN pki_pkcs11key k ON k.id = c.pkcs11_private_key_id"

/* 0.6 and later. */
#define MANAGED_COLUMNS                                                                            \
    NONE ", p11c.token_label, p11c.token_serial, CAST(m.id AS VARCHAR(40)), m.alias, m.algorithm," \
         " m.public_key_fingerprint_sha256, p11.key_id_hex,"                                       \
         " imp.encrypted_private_key_pkcs8_der_b64, sw.encrypted_private_key_pkcs8_der,"           \
         " swc.encryption_source, swc.encryption_source_ref"
#define MANAGED_JOINS                                                                              \
    " LEFT JOIN crypto_managed_key_protected_import_binding imp ON imp.managed_key_id = m.id"      \
    " LEFT JOIN crypto_managed_key_pkcs11_binding p11 ON p11.managed_key_id = m.id"                \
    " LEFT JOIN crypto_provider_pkcs11_config p11c ON p11c.profile_id = p11.provider_profile_id"   \
    " LEFT JOIN crypto_managed_key_software_binding sw ON sw.managed_key_id = m.id"                \
    " LEFT JOIN crypto_provider_software_config swc ON swc.profile_id = sw.provider_profile_id"

/* ---- numbers of credentials by a name, whose parameter follows ---- */

#define BY_UNIQUE(table) "SELECT credential_id FROM " table " WHERE unique_name = "
#define BY_DEVICE(issued)                                                                          \
    "SELECT i3.credential_id FROM " issued " i3 JOIN devices_devicemodel d3"                       \
    " ON d3.id = i3.device_id WHERE d3.common_name = "
#define BY_DOMAIN(ca)                                                                              \
    "SELECT ca3.credential_id FROM pki_domainmodel dm JOIN " ca " ca3"                             \
    " ON ca3.id = dm.issuing_ca_id WHERE dm.unique_name = "
#define BY_REMOTE_OWNER                                                                            \
    "SELECT credential_id FROM (SELECT r3.credential_id FROM " REMOTE " r3"                        \
    " JOIN pki_ownercredentialmodel o3 ON o3.id = r3.owner_credential_id"                          \
    " WHERE r3.issued_credential_type = 2 AND o3.unique_name = "
#define NEWEST_OWNER " ORDER BY r3.created_at DESC, r3.id DESC LIMIT 1) newest"
#define BY_ALIAS                                                                                   \
    "SELECT c3.id FROM crypto_managed_key m3 JOIN pki_credentialmodel c3"                          \
    " ON c3.managed_private_key_id = m3.id WHERE m3.alias = "
#define BY_KEY_LABEL                                                                               \
    "SELECT c3.id FROM pki_pkcs11key k3 JOIN pki_credentialmodel c3"                               \
    " ON c3.pkcs11_private_key_id = k3.id WHERE k3.key_label = "

/* ---- keys in the token: a key of the credential's own goes before, then an import ---- */

#define COUNT_LABELLED                                                                             \
    "SELECT count(*) FROM pki_credentialmodel c JOIN pki_pkcs11key k"                              \
    " ON k.id = c.pkcs11_private_key_id WHERE c.private_key = ''"
#define COUNT_MANAGED                                                                              \
    "SELECT count(*) FROM crypto_managed_key m JOIN crypto_managed_key_pkcs11_binding p11"         \
    " ON p11.managed_key_id = m.id LEFT JOIN crypto_managed_key_protected_import_binding imp"      \
    " ON imp.managed_key_id = m.id LEFT JOIN pki_credentialmodel c"                                \
    " ON c.managed_private_key_id = m.id WHERE imp.managed_key_id IS NULL"                         \
    " AND (c.id IS NULL OR c.private_key = '')"

/* ---- releases ---- */

#define CA_0_4 "pki_issuingcamodel"
#define CA_0_5 "pki_genericcamodel"
#define ISSUED_0_4 "devices_issuedcredentialmodel"
#define ISSUED_0_5 "pki_issuedcredentialmodel"
#define SIGNER "signer_signermodel"
#define OWNER "pki_ownercredentialmodel"

#define SELECT_0_3(repeats, join)                                                                  \
    "SELECT " CREDENTIAL_COLUMNS ", " NONE ", " NONE ", " DEVICE_COLUMNS(repeats) ", " NONE_3      \
    CREDENTIAL_JOINS(CA_0_4, ISSUED_0_4)                                                           \
    join

const struct trustpoint_tables tables_0_3 = {
    .keys = TRUSTPOINT_KEYS_NONE,
    .select_all = SELECT_0_3(REPEATS_ALL, REPEATS_ALL_JOIN(ISSUED_0_4)),
    .select_some = SELECT_0_3(REPEATS_SOME(ISSUED_0_4), ""),
    .by_ca = {BY_UNIQUE(CA_0_4), ""},
    .by_device = {BY_DEVICE(ISSUED_0_4), ""},
    .by_domain = {BY_DOMAIN(CA_0_4), ""},
};

#define SELECT_LABELLED(ca, issued, owner_join, repeats, join)                                     \
    "SELECT " CREDENTIAL_COLUMNS                                                                   \
    ", s.unique_name, o.unique_name, " DEVICE_COLUMNS(repeats) ", " LABELLED_COLUMNS               \
    CREDENTIAL_JOINS(ca, issued)                                                                   \
    SIGNER_JOIN owner_join LABELLED_JOIN join

const struct trustpoint_tables tables_0_4 = {
    .keys = TRUSTPOINT_KEYS_LABELLED,
    .select_all = SELECT_LABELLED(CA_0_4, ISSUED_0_4, OWNER_JOIN_DIRECT, REPEATS_ALL,
                                  REPEATS_ALL_JOIN(ISSUED_0_4)),
    .select_some =
        SELECT_LABELLED(CA_0_4, ISSUED_0_4, OWNER_JOIN_DIRECT, REPEATS_SOME(ISSUED_0_4), ""),
    .by_ca = {BY_UNIQUE(CA_0_4), ""},
    .by_signer = {BY_UNIQUE(SIGNER), ""},
    .by_owner = {BY_UNIQUE(OWNER), ""},
    .by_device = {BY_DEVICE(ISSUED_0_4), ""},
    .by_domain = {BY_DOMAIN(CA_0_4), ""},
    .by_alias = {BY_KEY_LABEL, ""},
    .count_in_token = COUNT_LABELLED,
};

const struct trustpoint_tables tables_0_5 = {
    .keys = TRUSTPOINT_KEYS_LABELLED,
    .select_all = SELECT_LABELLED(CA_0_5, ISSUED_0_5, OWNER_JOIN_REMOTE, REPEATS_ALL,
                                  REPEATS_ALL_JOIN(ISSUED_0_5)),
    .select_some =
        SELECT_LABELLED(CA_0_5, ISSUED_0_5, OWNER_JOIN_REMOTE, REPEATS_SOME(ISSUED_0_5), ""),
    .by_ca = {BY_UNIQUE(CA_0_5), ""},
    .by_signer = {BY_UNIQUE(SIGNER), ""},
    .by_owner = {BY_REMOTE_OWNER, NEWEST_OWNER},
    .by_device = {BY_DEVICE(ISSUED_0_5), ""},
    .by_domain = {BY_DOMAIN(CA_0_5), ""},
    .by_alias = {BY_KEY_LABEL, ""},
    .count_in_token = COUNT_LABELLED,
};

#define SELECT_MANAGED(repeats, join)                                                              \
    "SELECT " CREDENTIAL_COLUMNS                                                                   \
    ", s.unique_name, o.unique_name, " DEVICE_COLUMNS(repeats) ", " MANAGED_COLUMNS                \
    CREDENTIAL_JOINS(CA_0_5, ISSUED_0_5)                                                           \
    SIGNER_JOIN OWNER_JOIN_REMOTE                                                                  \
        " LEFT JOIN crypto_managed_key m ON m.id = c.managed_private_key_id" MANAGED_JOINS join
#define WITHOUT_CREDENTIAL                                                                         \
    " WHERE NOT EXISTS (SELECT 1 FROM pki_credentialmodel x WHERE x.managed_private_key_id = "     \
    "m.id)"

const struct trustpoint_tables tables_0_6 = {
    .keys = TRUSTPOINT_KEYS_MANAGED,
    .select_all = SELECT_MANAGED(REPEATS_ALL, REPEATS_ALL_JOIN(ISSUED_0_5)),
    .select_some = SELECT_MANAGED(REPEATS_SOME(ISSUED_0_5), ""),
    .select_keys = "SELECT 0, 0, '', CAST(m.created_at AS VARCHAR(40)), " NONE_3 ", " NONE
                   ", " NONE_3 ", " NONE ", 0, " MANAGED_COLUMNS
                   " FROM crypto_managed_key m" MANAGED_JOINS WITHOUT_CREDENTIAL,
    .count_keys = "SELECT count(*) FROM crypto_managed_key m" WITHOUT_CREDENTIAL,
    .by_ca = {BY_UNIQUE(CA_0_5), ""},
    .by_signer = {BY_UNIQUE(SIGNER), ""},
    .by_owner = {BY_REMOTE_OWNER, NEWEST_OWNER},
    .by_device = {BY_DEVICE(ISSUED_0_5), ""},
    .by_domain = {BY_DOMAIN(CA_0_5), ""},
    .by_alias = {BY_ALIAS, ""},
    .count_in_token = COUNT_MANAGED,
};

/* ---- which one is it ---- */

tpks_result trustpoint_recognise(database *d, const schema **out)
{
    static const struct {
        const char *table; /* the first that is there decides */
        const schema *schema;
        const struct trustpoint_tables *tables;
    } releases[] = {
        {"app_secret_backend", &schema_trustpoint_current, &tables_0_6},
        {"management_keystorageconfig", &schema_trustpoint_0_4, &tables_0_4},
        {"pki_credentialmodel", &schema_trustpoint_plain, &tables_0_3},
    };
    bool there = false;

    for (size_t i = 0; i < COUNT(releases); i++) {
        TRY(d->backend->has_table(d->db, releases[i].table, &there));
        if (!there)
            continue;
        *out = releases[i].schema;
        d->tables = releases[i].tables;
        break;
    }
    if (*out != &schema_trustpoint_0_4)
        return TPKS_OK;
    TRY(d->backend->has_table(d->db, "pki_genericcamodel", &there));
    if (there) {
        *out = &schema_trustpoint_0_5;
        d->tables = &tables_0_5;
    }
    return TPKS_OK;
}
