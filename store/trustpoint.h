/*
 * trustpoint.h - Trustpoint's own databases, as its releases 0.3 and later write them
 *
 * A Django application on SQLite or PostgreSQL, whose rows are read here and never changed. What
 * each release calls its tables is in trustpoint_tables.c; everything else works with the parts of
 * statements that stand there. SQL keeps to what both engines understand alike: times, UUIDs and
 * numbers that may be of another type are cast to text.
 */
#ifndef TRUSTPOINT_TRUSTPOINT_H
#define TRUSTPOINT_TRUSTPOINT_H

#include <openssl/provider.h>

#include "rows.h"

/* ---- trustpoint_tables.c: which release, and its names of things ---- */

/* A query for numbers of credentials, whose only parameter stands between its two parts. */
typedef struct trustpoint_condition {
    const char *before; /* NULL: this release has no such thing */
    const char *after;
} trustpoint_condition;

/* How the keys that are not in the credential's own row are kept. */
typedef enum trustpoint_keys {
    TRUSTPOINT_KEYS_NONE = 0, /* 0.3 */
    TRUSTPOINT_KEYS_LABELLED, /* 0.4, 0.5: in the token, by label */
    TRUSTPOINT_KEYS_MANAGED   /* 0.6: "managed keys" of several kinds */
} trustpoint_keys;

struct trustpoint_tables {
    trustpoint_keys keys;
    /* Every credential, with the columns of trustpoint_row in their order. The first is for all
       of them, the second for the few that conditions select. */
    const char *select_all;
    const char *select_some;
    /* The managed keys that belong to no credential, in the same columns; NULL: there are none. */
    const char *select_keys;
    const char *count_keys;
    const char *count_in_token; /* keys, with a credential or without; NULL: there are none */
    trustpoint_condition by_ca, by_signer, by_owner, by_device, by_domain, by_alias;
};

/* *out stays NULL when it is no database of Trustpoint's. */
TPKS_CHECK tpks_result trustpoint_recognise(database *d, const schema **out);

/* ---- trustpoint_parser.c: many certificates, parsed quickly ---- */

#define TRUSTPOINT_KNOWN_CERTS 16

/* The certificate is NULL when it could not be kept. */
typedef struct trustpoint_known {
    char *pem;
    X509 *cert;
} trustpoint_known;

/* One walk's. Its certificates have no key that could be used; they must not outlive it. */
typedef struct trustpoint_parser {
    OSSL_LIB_CTX *libctx;
    OSSL_LIB_CTX *bare; /* without decoders */
    OSSL_PROVIDER *nothing;
    trustpoint_known known[TRUSTPOINT_KNOWN_CERTS];
    size_t next; /* whose place is taken */
} trustpoint_parser;

void trustpoint_parser_start(trustpoint_parser *p, OSSL_LIB_CTX *libctx);
void trustpoint_parser_finish(trustpoint_parser *p);
/* NULL: it is none. */
X509 *trustpoint_parse(const trustpoint_parser *p, const char *pem);
/* The same, but the last few are remembered. */
X509 *trustpoint_parse_known(trustpoint_parser *p, const char *pem);
/* A certificate of a parser once more, with its key. */
X509 *trustpoint_parse_key(OSSL_LIB_CTX *libctx, const X509 *cert);

/* ---- trustpoint_record.c: rows to records ---- */

/* One row of select_all and its sisters, borrowed from the query. NULL: there is none. */
typedef struct trustpoint_row {
    uint64_t credential; /* 0: a managed key without a credential */
    uint64_t type;       /* 0 TLS, 1 and 2 CA, 3 device, 4 DevOwnerID, 5 signer */
    const char *private_key;
    const char *created;
    uint64_t certificate;
    const char *cert_pem;
    uint64_t active_tls; /* 0: not the TLS credential in use */
    const char *ca;
    const char *signer;
    const char *owner; /* for its newest credential only */
    const char *device;
    const char *device_cn;
    uint64_t device_cn_repeats; /* this device has several with that name */
    /* 0.4, 0.5: pki_pkcs11key */
    const char *key_label;
    const char *token_label;
    const char *token_serial;
    /* 0.6: crypto_managed_key and its binding */
    const char *uuid; /* with or without dashes */
    const char *alias;
    const char *algorithm;
    const char *spki_sha256; /* hex */
    const char *key_id;      /* hex of the CKA_ID */
    const char *imported;    /* field format 2 */
    tpks_value encrypted;    /* EncryptedPrivateKeyInfo */
    const char *password_source;
    const char *password_ref;
} trustpoint_row;

/* Name and id, into an empty record. TPKS_TAMPERED: it has no id; the name is there all the same.
 */
TPKS_CHECK tpks_result trustpoint_name_record(const trustpoint_row *row, TPKS_RECORD *record);
/* On failure the empty record has what could be read: not for use, only for naming it. */
TPKS_CHECK tpks_result trustpoint_make_record(const database *d, trustpoint_parser *parser,
                                              const head *h, const trustpoint_row *row,
                                              TPKS_RECORD *record);
bool trustpoint_needs_dek(const TPKS_RECORD *record);
TPKS_CHECK tpks_result trustpoint_open_record(const database *d, OSSL_LIB_CTX *libctx,
                                              const TPKS_RECORD *record, DEK *dek,
                                              TPKS_SECRET **pkcs8);

/* ---- trustpoint_walk.c: through the rows ---- */

TPKS_CHECK tpks_result trustpoint_each_record(const database *d, OSSL_LIB_CTX *libctx,
                                              const head *h, const tpks_selector *selector,
                                              schema_each_fn *each, void *arg);
TPKS_CHECK tpks_result trustpoint_each_readable(const database *d, OSSL_LIB_CTX *libctx,
                                                const head *h, const tpks_selector *selector,
                                                schema_each_fn *each, schema_bad_fn *bad,
                                                void *arg);
TPKS_CHECK tpks_result trustpoint_count_records(const database *d, const head *h, uint64_t *out);
TPKS_CHECK tpks_result trustpoint_count_in_token(const database *d, const head *h, uint64_t *out);

/* ---- trustpoint_search.c: selectors to statements ---- */

/* Which meaning a selector's name is looked for in. */
typedef enum trustpoint_reading {
    TRUSTPOINT_CANONICAL, /* as trustpoint_name() makes it */
    TRUSTPOINT_BARE       /* the plain name of a CA, signer, owner, alias, device or domain */
} trustpoint_reading;

typedef struct trustpoint_search {
    char sql[10240];
    tpks_value values[16];
    size_t count;
    bool nothing; /* no row can match */
    /* What the values point to. */
    char device[256];
    char texts[8][2 * 2048 + 1]; /* a DER name in hexadecimal fits */
    size_t text_count;
} trustpoint_search;

/* By SHA-1 fingerprint and by key there is no column to search: the statement is for every row that
 * the rest selects, and who walks over them looks at their certificates. */
TPKS_CHECK tpks_result trustpoint_search_credentials(const struct trustpoint_tables *tables,
                                                     const tpks_selector *by,
                                                     trustpoint_reading reading,
                                                     trustpoint_search *out);
/* The managed keys without a credential. */
TPKS_CHECK tpks_result trustpoint_search_keys(const struct trustpoint_tables *tables,
                                              const tpks_selector *by, trustpoint_reading reading,
                                              trustpoint_search *out);

/* ---- trustpoint_names.c: names that are canonical and unique ---- */

#define TRUSTPOINT_TLS "tls-server"
#define TRUSTPOINT_CA "ca/"
#define TRUSTPOINT_SIGNER "signer/"
#define TRUSTPOINT_OWNER "owner/"
#define TRUSTPOINT_DEVICE "device/"
#define TRUSTPOINT_KEY "key/"
#define TRUSTPOINT_CREDENTIAL "credential/"

/*
 * "tls-server" (the one in use), "ca/NAME", "signer/NAME", "owner/NAME", "device/DEVICE/CN",
 * "key/ALIAS", or "credential/NUMBER" when the row has none of these or it is not fit as a name.
 * Free with OPENSSL_free(); NULL: no memory.
 */
char *trustpoint_name(const trustpoint_row *row);
/* Does it have the form of a canonical name, whether or not there is such a record? */
bool trustpoint_name_is_canonical(const char *name);
/* A constant text, as tpks_record_role() gives it. */
const char *trustpoint_role(const trustpoint_row *row);
/* 32 hexadecimal digits, with dashes or without, to 16 bytes. */
bool trustpoint_uuid(const char *text, unsigned char out[TPKS_ID_SIZE]);

/* ---- trustpoint_time.c: Django's times ---- */

/*
 * "2025-12-17 10:20:30.123450": UTC unless an offset such as +00 or -05:30 follows; fewer digits of
 * a second, or none, are fine. False: it is no such time.
 */
bool trustpoint_time(const char *text, int64_t *seconds, unsigned *microseconds);
/* As Python's datetime.isoformat() writes it, in UTC, microseconds only when there are any. */
bool trustpoint_isoformat(const char *text, char out[48]);

/* ---- trustpoint_field.c: encrypted columns ---- */

/* Is the stored value a key in the clear? */
bool trustpoint_field_is_plain(const char *text);
/*
 * 0.4, 0.5: base64(nonce[12] tag[16] ciphertext), AES-256-GCM without additional data; the
 * plaintext ends with zero bytes and their number. TPKS_TAMPERED.
 */
TPKS_CHECK tpks_result trustpoint_field_open_1(DEK *dek, const char *text, TPKS_SECRET **plain);
/* 0.6: "tpsec:v1:" before that, additional data, no padding. TPKS_TAMPERED. */
TPKS_CHECK tpks_result trustpoint_field_open_2(DEK *dek, const char *text, TPKS_SECRET **plain);
/* For readers of PEM (PEM_read_bio_X509(3)): a database must not make us ask for a password, which
 * libcrypto does at the terminal for whatever calls itself encrypted. */
int trustpoint_no_password(char *out, int size, int writing, void *arg);
/* The DER within "-----BEGIN PRIVATE KEY-----". TPKS_TAMPERED. */
TPKS_CHECK tpks_result trustpoint_pem_to_pkcs8(const void *pem, size_t size, TPKS_SECRET **pkcs8);
/* The DER within base64. TPKS_TAMPERED. */
TPKS_CHECK tpks_result trustpoint_base64_to_pkcs8(const TPKS_SECRET *base64, TPKS_SECRET **pkcs8);
/* EncryptedPrivateKeyInfo (RFC 5958, PBES2 of RFC 8018). TPKS_WRONG_SECRET, TPKS_TAMPERED. */
TPKS_CHECK tpks_result trustpoint_decrypt_pkcs8(OSSL_LIB_CTX *libctx, const bytes *encrypted,
                                                const TPKS_SECRET *password, TPKS_SECRET **pkcs8);
/* The password that `source` ("env", "file", "dev_plaintext") and `ref` name. TPKS_WRONG_SECRET. */
TPKS_CHECK tpks_result trustpoint_password(const char *source, const char *ref, TPKS_SECRET **out);

/* ---- trustpoint_chain.c: from the leaf to the root ---- */

/*
 * Trustpoint stores a chain in either direction and sometimes with the leaf in it: orders `given`
 * by who issued whom, from the leaf's issuer on, and leaves out what does not belong to the path.
 * The certificates in *out are references, to be freed with it.
 */
TPKS_CHECK tpks_result trustpoint_chain(OSSL_LIB_CTX *libctx, X509 *leaf,
                                        const STACK_OF(X509) * given, STACK_OF(X509) * *out);

/* ---- trustpoint_proof.c: is this the DEK? ---- */

/* Does a stored ciphertext open with it? Fine as well: there is none to open. TPKS_TAMPERED. */
TPKS_CHECK tpks_result trustpoint_prove_dek(const database *d, OSSL_LIB_CTX *libctx, const head *h,
                                            DEK *dek);
/* The same where a doubt counts as a no: without a ciphertext only a DEK that has proven itself,
 * by how it was unwrapped, is taken. */
bool trustpoint_is_proven(const database *d, DEK *dek, bool by_itself);

/* ---- trustpoint_head.c: what both generations' heads have in common ---- */

/* A copy in place of *to, of "" for NULL. */
TPKS_CHECK tpks_result trustpoint_set_text(char **to, const char *text);
/* A head without slots. `facts` distinguish this database from others and never change. */
TPKS_CHECK tpks_result trustpoint_start_head(OSSL_LIB_CTX *libctx, const char *facts, head *h);
/* One more slot, which is what `what` says, and how it holds the DEK. */
TPKS_CHECK tpks_result trustpoint_add_slot(OSSL_LIB_CTX *libctx, head *h, slot_kind kind,
                                           const char *label, slot_row **slot);
TPKS_CHECK tpks_result trustpoint_add_wrap(head *h, const slot_row *slot, wrap_algorithm algorithm,
                                           const unsigned char *data, size_t size);
/* Where the database says that token and PIN are: taken only if module and PIN file are here, and
 * nobody who can write the database could have written the module. */
TPKS_CHECK tpks_result trustpoint_set_token(head *h, const char *label, const char *serial,
                                            const char *module, const char *pin_file);
/* Do both open the DEK in the same ways? */
bool trustpoint_same_head(const head *a, const head *b);

/* ---- trustpoint_restore.c ---- */

extern const schema_rewrap trustpoint_legacy_rewrap, trustpoint_current_rewrap;
/* What 0.6 stores of a wrapped DEK. */
TPKS_CHECK tpks_result trustpoint_make_envelope(const wrap_row *wrap, bytes *out);

extern const schema schema_trustpoint_plain;   /* 0.3 */
extern const schema schema_trustpoint_0_4;     /* trustpoint_legacy.c */
extern const schema schema_trustpoint_0_5;     /* trustpoint_legacy.c */
extern const schema schema_trustpoint_current; /* trustpoint_current.c */

extern const struct trustpoint_tables tables_0_3, tables_0_4, tables_0_5, tables_0_6;

#endif
