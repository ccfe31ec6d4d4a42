/*
 * keystore.h - the public interface of libtrustpoint-keystore
 *
 * A keystore is one data encryption key (DEK), its slots (each can unwrap the DEK: with the key
 * encryption key (KEK) of one HSM, a password, a recovery key) and its records (one private key
 * with its certificate chain each). Everything that programs may do with a keystore is declared
 * here; the OpenSSL provider and the command trustpoint-keystore use nothing else.
 *
 * Results: every function that can fail returns a tpks_result, which must be checked. On failure
 * tpks_error_text() says which thing, why, and what to do. Output parameters are set on success
 * only, unless said otherwise.
 *
 * Threads: a TPKS handle and what was read through it belong to one thread at a time; different
 * handles are independent. A TPKS_CONFIG, TPKS_URI or TPKS_RECORD is immutable once made and may
 * be read by many threads. No handle may be used in a forked child.
 *
 * Sizes are in bytes. Times are seconds since the epoch (UTC).
 */
#ifndef TRUSTPOINT_KEYSTORE_H
#define TRUSTPOINT_KEYSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>
#include <openssl/x509.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TPKS_API __attribute__((visibility("default")))
#define TPKS_CHECK __attribute__((warn_unused_result))

/* ---- results ------------------------------------------------------------------------------- */

/*
 * The numbers are part of the interface: the provider uses them as OpenSSL reason codes and
 * programs store them. They are never renumbered.
 */
typedef enum tpks_result {
    TPKS_OK = 0,
    TPKS_NOT_FOUND = 1,             /* no record matches */
    TPKS_AMBIGUOUS = 2,             /* several records match; the text lists candidates */
    TPKS_EXISTS = 3,                /* the name (or file) is taken */
    TPKS_KEK_MISSING = 4,           /* token found and logged in, but it has no key of our CKA_ID */
    TPKS_KEK_FOREIGN = 5,           /* a key of our CKA_ID, but not the one that wrapped the DEK; or
                                       a DEK file that is damaged or another keystore's */
    TPKS_TOKEN_MISSING = 6,         /* the module works, the token is not there */
    TPKS_HSM_UNAVAILABLE = 7,       /* the module or the token does not work; not a key loss */
    TPKS_WRONG_SECRET = 8,          /* wrong password, recovery key or PIN, or none was given */
    TPKS_PIN_LOCKED = 9,            /* locked, or one try from it, or refused before */
    TPKS_TAMPERED = 10,             /* stored data contradicts its authentication */
    TPKS_NOT_PERMITTED = 11,        /* file mode, owner, missing right, or `allow` forbids it */
    TPKS_DATABASE_UNAVAILABLE = 12, /* locked, unreachable, damaged below our format, disk full */
    TPKS_NOT_A_KEYSTORE = 13,       /* opened, but not ours */
    TPKS_NEWER_FORMAT = 14,         /* written by a newer version of this software */
    TPKS_UNINITIALIZED = 15,        /* nothing there yet */
    TPKS_ROLLED_BACK = 16,          /* older than this host's anchor says */
    TPKS_RESTORE_PENDING = 17,      /* another process is restoring the KEK */
    TPKS_BAD_URI = 18,
    TPKS_BAD_CONFIG = 19,
    TPKS_BAD_INPUT = 20,
    TPKS_MISMATCH = 21,    /* certificate or pin does not belong to the key */
    TPKS_CONFLICT = 22,    /* changed by another process meanwhile: try again */
    TPKS_UNSUPPORTED = 23, /* this token, OpenSSL or format cannot do it */
    TPKS_NO_MEMORY = 24,
    TPKS_INTERNAL = 25,
    TPKS_KEY_MISSING = 26 /* token found and logged in, but the record's key is not on it */
} tpks_result;

/* The result's stable name in the vocabulary of `status`, such as "kek-missing". Never NULL. */
TPKS_API const char *tpks_result_name(tpks_result result);

/* The text of this thread's last failure, valid until its next call here. Never NULL, never a
 * secret. */
TPKS_API const char *tpks_error_text(void);

/* The version of the library, such as "1.0.0". */
TPKS_API const char *tpks_version(void);

/* ---- secrets ------------------------------------------------------------------------------- */

/*
 * Bytes in memory of their own: locked (mlock(2), best effort), left out of core dumps
 * (MADV_DONTDUMP), wiped when freed. Used by one thread at a time.
 */
typedef struct tpks_secret TPKS_SECRET;

/* A secret of `size` zero bytes; NULL when memory is short. */
TPKS_API TPKS_SECRET *tpks_secret_new(size_t size);
/* A copy of `size` bytes; the caller wipes its own. */
TPKS_API TPKS_SECRET *tpks_secret_copy(const void *data, size_t size);
/* Wipes and frees; NULL is ignored. */
TPKS_API void tpks_secret_free(TPKS_SECRET *secret);
TPKS_API unsigned char *tpks_secret_data(TPKS_SECRET *secret);
TPKS_API const unsigned char *tpks_secret_data_const(const TPKS_SECRET *secret);
TPKS_API size_t tpks_secret_size(const TPKS_SECRET *secret);
/* Makes it shorter, wiping what is cut off; `size` must not exceed the present size. */
TPKS_API void tpks_secret_shrink(TPKS_SECRET *secret, size_t size);
/*
 * Reads a file that holds a secret: a regular file that only its owner, or root plus one group,
 * can read (never others), of at most `limit` bytes. Exactly one line end (LF or CRLF) at the
 * end is stripped. TPKS_NOT_PERMITTED, TPKS_BAD_INPUT (too long, empty, no such file).
 */
TPKS_API TPKS_CHECK tpks_result tpks_secret_read_file(const char *path, size_t limit,
                                                      TPKS_SECRET **out);
/* The same from an open descriptor (a pipe, say) until its end, without the check of owner and
 * mode. */
TPKS_API TPKS_CHECK tpks_result tpks_secret_read_fd(int fd, size_t limit, TPKS_SECRET **out);
/* Is it fit as a new password: 12 characters to 512 bytes of UTF-8, no control characters, and not
 * what a recovery key begins with? */
TPKS_API TPKS_CHECK tpks_result tpks_password_check(const TPKS_SECRET *password);

/* ---- configuration ------------------------------------------------------------------------- */

/* /etc/trustpoint/keystore.cnf, unless the build says otherwise. */
TPKS_API const char *tpks_config_default_path(void);

/* A strictly parsed configuration file: section [keystore] and sections [keystore_NAME]. */
typedef struct tpks_config TPKS_CONFIG;

/* `path` NULL means the default path. TPKS_BAD_CONFIG names file, section and directive. */
TPKS_API TPKS_CHECK tpks_result tpks_config_load(const char *path, TPKS_CONFIG **out);
TPKS_API void tpks_config_free(TPKS_CONFIG *config);
/* How many keystores it names, and the name of number `i` ("" for section [keystore]). */
TPKS_API size_t tpks_config_count(const TPKS_CONFIG *config);
TPKS_API const char *tpks_config_name(const TPKS_CONFIG *config, size_t i);
/*
 * The value of a directive ("store", "token", "dek", "hsm-session", "restore", "allow",
 * "decrypt", "log", "state") of keystore `keystore` (NULL or "" for [keystore]), or its default;
 * NULL if there is neither. A pin-value in the token URI is never returned (the parser refuses it).
 */
TPKS_API const char *tpks_config_get(const TPKS_CONFIG *config, const char *keystore,
                                     const char *directive);

/* ---- URIs and stubs ------------------------------------------------------------------------ */

typedef enum tpks_uri_type {
    TPKS_TYPE_ANY = 0, /* no ?type=: private key, certificate, chain */
    TPKS_TYPE_PRIVATE,
    TPKS_TYPE_PUBLIC,
    TPKS_TYPE_CERT,
    TPKS_TYPE_CHAIN
} tpks_uri_type;

/*
 * Which records are meant. Unset pointers are NULL; all set conditions must hold. An empty
 * selector means every record.
 */
typedef struct tpks_selector {
    const char *name;                 /* UTF-8 */
    const unsigned char *id;          /* 16 bytes: the record's id */
    const unsigned char *cert_sha256; /* 32 bytes: SHA-256 of the leaf certificate's DER */
    const unsigned char *cert_sha1;   /* 20 bytes: SHA-1 of the leaf certificate's DER */
    const unsigned char *spki_sha256; /* 32 bytes: SHA-256 of the SubjectPublicKeyInfo DER */
    const unsigned char *subject;     /* DER of the leaf's subject name */
    size_t subject_size;
    const unsigned char *issuer; /* DER of the leaf's issuer name */
    size_t issuer_size;
    const unsigned char
        *serial; /* the leaf's serial number, unsigned big-endian, no leading zeros */
    size_t serial_size;
    /*
     * What only a database of Trustpoint knows, as UTF-8; in a native keystore these are
     * TPKS_NOT_FOUND with a text that says so.
     */
    const char *role;       /* "tls-server": the TLS credential that Trustpoint uses now */
    const char *credential; /* the credential's number, decimal */
    const char *ca;         /* unique name of a CA */
    const char *signer;     /* unique name of a signer */
    const char *owner;      /* unique name of a DevOwnerID */
    const char *device;     /* common name of a device */
    const char *cn;         /* common name of the certificate issued to a device, or of any */
    const char *alias;      /* alias or UUID of a managed key */
} tpks_selector;

/* A parsed `trustpoint:` URI. */
typedef struct tpks_uri TPKS_URI;

/* Is this text a URI of our scheme (case-insensitive)? Says nothing about the rest. */
TPKS_API bool tpks_uri_is_ours(const char *text);
/*
 * trustpoint:[//][NAME][?attribute=value{&attribute=value}] as the manual describes, at most
 * 4096 bytes. Unknown, repeated or malformed attributes are TPKS_BAD_URI, which names them.
 */
TPKS_API TPKS_CHECK tpks_result tpks_uri_parse(const char *text, TPKS_URI **out);
TPKS_API void tpks_uri_free(TPKS_URI *uri);
/* The keystore attribute, or "" for the default keystore. */
TPKS_API const char *tpks_uri_keystore(const TPKS_URI *uri);
TPKS_API tpks_uri_type tpks_uri_type_of(const TPKS_URI *uri);
/* Which records; the pointers inside live as long as `uri`. `spki=` pins are part of it. */
TPKS_API const tpks_selector *tpks_uri_selector(const TPKS_URI *uri);
/* Is it trustpoint:// without name and selectors (list everything)? */
TPKS_API bool tpks_uri_is_list(const TPKS_URI *uri);
/*
 * The canonical URI of a record, percent-encoded but for '/': trustpoint://NAME or, in a keystore
 * other than the default, trustpoint://NAME?keystore=KEYSTORE. Free with OPENSSL_free(). NULL: no
 * memory.
 */
TPKS_API char *tpks_uri_build(const char *keystore, const char *name);

/* What a PEM stub says: see trustpoint-provider(7). It holds no secret. */
#define TPKS_STUB_LABEL "TRUSTPOINT KEY URI"
#define TPKS_STUB_MAX 1024
typedef struct tpks_stub {
    char key_type[16]; /* "RSA", "RSA-PSS", "EC", "ED25519", "ED448" */
    char uri[TPKS_STUB_MAX];
} tpks_stub;
/* DER: SEQUENCE { UTF8String description, UTF8String key type, UTF8String uri }. Free *der with
 * OPENSSL_free(). */
TPKS_API TPKS_CHECK tpks_result tpks_stub_encode(const char *key_type, const char *uri,
                                                 unsigned char **der, size_t *size);
/* Could these bytes be a stub? Cheap, touches no error state; for decoders that see every key file.
 */
TPKS_API bool tpks_stub_looks_like(const unsigned char *der, size_t size);
/* TPKS_BAD_INPUT when it is not a well-formed stub of at most TPKS_STUB_MAX bytes. */
TPKS_API TPKS_CHECK tpks_result tpks_stub_decode(const unsigned char *der, size_t size,
                                                 tpks_stub *out);

/* ---- open and close ------------------------------------------------------------------------ */

typedef enum tpks_purpose {
    TPKS_ASK_PIN,     /* the token's PIN: only with pin-source=callback */
    TPKS_ASK_PASSWORD /* a backup password or recovery key */
} tpks_purpose;

/*
 * Asks a human. `info` names the thing asked for ("Trustpoint keystore web (1a2b3c4d) backup
 * password"). Writes at most `size` bytes, sets *length, returns 1; 0 means refused or nobody
 * there. No lock of this process is held meanwhile, only, during a restore, the lock file that
 * keeps other processes from asking too. At most once per load.
 */
typedef int tpks_ask_fn(void *arg, tpks_purpose purpose, const char *info, char *buffer,
                        size_t size, size_t *length);

/* Called now and then during long work. Return 0 to stop it (the work then fails with
 * TPKS_CONFLICT). */
typedef int tpks_progress_fn(void *arg, uint64_t done, uint64_t total);

typedef enum tpks_access {
    TPKS_LOAD = 0, /* read records and load keys, as a program does that uses a key */
    TPKS_WRITE = 1 /* change the keystore */
} tpks_access;

/* How to open a keystore; zero-initialise and set what is wanted. */
typedef struct tpks_options {
    const TPKS_CONFIG *config; /* borrowed for the life of the handle */
    const char *keystore;      /* name of the section, NULL or "" for [keystore] */
    OSSL_LIB_CTX *libctx;      /* for hashing, certificates and keys; NULL is the default one */
    tpks_access access;
    /* Writers: go on although this host's anchor contradicts the database. */
    bool accept_new_anchor;
    /* A missing KEK is only reported, as `status` wants it. */
    bool no_restore;
    /* The caller makes keys of what tpks_load_key() returns and compares their public half itself.
     */
    bool caller_compares;
    tpks_ask_fn *ask; /* NULL: nobody can be asked */
    void *ask_arg;
} tpks_options;

typedef struct tpks TPKS;

/*
 * Opens the database read-only (TPKS_LOAD) or read-write and reads the header; touches neither
 * HSM nor prompt. Every kind of damage has its own result: see tpks_result.
 */
TPKS_API TPKS_CHECK tpks_result tpks_open(const tpks_options *options, TPKS **out);
TPKS_API void tpks_close(TPKS *ks);
/* Whose tables these are: "native 1", "Trustpoint 0.5" and so on. Never NULL. */
TPKS_API const char *tpks_schema_name(const TPKS *ks);

/*
 * Gets the DEK from the first slot of this host that works (the file of a software keystore; where
 * there is none, the HSM), proves it and the header. Functions that need the DEK do this
 * themselves; call it to find out whether they could.
 */
TPKS_API TPKS_CHECK tpks_result tpks_unlock(TPKS *ks);
/* The same with a password or recovery key instead of the HSM. TPKS_WRONG_SECRET. */
TPKS_API TPKS_CHECK tpks_result tpks_unlock_with(TPKS *ks, const TPKS_SECRET *secret);

/* ---- a new keystore ------------------------------------------------------------------------ */

/* Argon2id cost (RFC 9106); all zero means the default for this machine. */
typedef struct tpks_kdf_cost {
    uint32_t t;     /* passes */
    uint32_t m_kib; /* memory in KiB */
    uint32_t p;     /* lanes */
} tpks_kdf_cost;

typedef struct tpks_create_params {
    const char *label;           /* for humans; NULL: the section's name or "trustpoint" */
    bool software;               /* no HSM: the DEK in a 0600 file of its own beside the state */
    const TPKS_SECRET *password; /* NULL: no password slot */
    bool recovery;               /* make a recovery-key slot */
    bool no_way_back;            /* accept neither password nor recovery slot */
    tpks_kdf_cost cost;
} tpks_create_params;

/*
 * Makes the database, a DEK and its slots in one transaction, proven by reading back before it
 * is committed. `recovery_key` gets the printable recovery key when one was asked for (caller
 * frees). TPKS_EXISTS if there is a keystore (or any other file) already. When the connection to a
 * server was lost in the last moment, and nothing says whether the keystore is there
 * (TPKS_DATABASE_UNAVAILABLE), its KEK stays, and `recovery_key` gets the key, too: should the
 * keystore be there, nothing else will ever show it.
 */
TPKS_API TPKS_CHECK tpks_result tpks_create(const tpks_options *options,
                                            const tpks_create_params *params,
                                            TPKS_SECRET **recovery_key);

/* ---- records ------------------------------------------------------------------------------- */

#define TPKS_ID_SIZE 16

/* What the provider may do with a key. Decryption is off unless asked for. */
enum { TPKS_MAY_SIGN = 1, TPKS_MAY_DECRYPT = 2, TPKS_MAY_AGREE = 4 };

/* One record's public side, a copy that outlives the handle. */
typedef struct tpks_record TPKS_RECORD;

/* The one record that matches. TPKS_NOT_FOUND, TPKS_AMBIGUOUS. Certificates are checked against the
 * key. */
TPKS_API TPKS_CHECK tpks_result tpks_find(TPKS *ks, const tpks_selector *selector,
                                          TPKS_RECORD **out);
/*
 * Calls `each` with every record that matches (NULL: all) as they are read, ordered by name (in a
 * database of Trustpoint: credentials by their number, then keys that no credential has); the
 * record is freed after the call. A result other than TPKS_OK ends the walk and is returned.
 */
typedef tpks_result tpks_each_fn(void *arg, const TPKS_RECORD *record);
TPKS_API TPKS_CHECK tpks_result tpks_each(TPKS *ks, const tpks_selector *selector,
                                          tpks_each_fn *each, void *arg);
/* Called for a record that is not as it should be, with its name, or "(record ID)", and the text
 * that says why. */
typedef void tpks_bad_fn(void *arg, const char *name, tpks_result result, const char *text);
/*
 * The same, but a record that can't be read does not hide the others: `bad` is called for it, in
 * its place, and the walk goes on. At the end the result is that of the first one that was bad.
 */
TPKS_API TPKS_CHECK tpks_result tpks_each_readable(TPKS *ks, const tpks_selector *selector,
                                                   tpks_each_fn *each, tpks_bad_fn *bad, void *arg);
TPKS_API void tpks_record_free(TPKS_RECORD *record);

TPKS_API const char *tpks_record_name(const TPKS_RECORD *record);
TPKS_API const unsigned char *tpks_record_id(const TPKS_RECORD *record); /* TPKS_ID_SIZE bytes */
TPKS_API const char *
tpks_record_key_type(const TPKS_RECORD *record); /* "RSA", "RSA-PSS", "EC", "ED25519", "ED448" */
TPKS_API const unsigned char *tpks_record_spki(const TPKS_RECORD *record, size_t *size); /* DER */
TPKS_API const unsigned char *tpks_record_spki_sha256(const TPKS_RECORD *record); /* 32 bytes */
TPKS_API unsigned tpks_record_policy(const TPKS_RECORD *record);                  /* TPKS_MAY_... */
TPKS_API uint64_t tpks_record_version(const TPKS_RECORD *record); /* +1 with every change */
/* What Trustpoint uses it for: "tls-server", "ca", "signer", "owner", "device", "key" (none of
 * them); "" in a native keystore. */
TPKS_API const char *tpks_record_role(const TPKS_RECORD *record);
TPKS_API int64_t tpks_record_created(const TPKS_RECORD *record);
TPKS_API int64_t tpks_record_changed(const TPKS_RECORD *record);
/* Where its private key lives. */
typedef enum tpks_key_home {
    TPKS_HOME_DATABASE = 1, /* sealed under the DEK: tpks_load_key() */
    TPKS_HOME_PLAIN,        /* in the database, in the clear: tpks_load_key() */
    TPKS_HOME_TOKEN,        /* in a token, which it never leaves: tpks_token_key_open() */
    TPKS_HOME_SOFTWARE,     /* wrapped by the software storage of Trustpoint: tpks_load_key() */
    TPKS_HOME_NONE          /* nowhere: certificates alone */
} tpks_key_home;
TPKS_API tpks_key_home tpks_record_home(const TPKS_RECORD *record);
/* The serial number of the token where it lives; "" when it lives elsewhere or in any token. */
TPKS_API const char *tpks_record_token_serial(const TPKS_RECORD *record);
/* Certificates: number 0 is the leaf, the rest its chain. */
TPKS_API size_t tpks_record_cert_count(const TPKS_RECORD *record);
TPKS_API const unsigned char *tpks_record_cert(const TPKS_RECORD *record, size_t i,
                                               size_t *size); /* DER */

/*
 * Decrypts the private key: PKCS#8 DER (RFC 5208), authenticated together with everything else of
 * the record, and its public half recomputed and compared (unless `caller_compares`). Unlocks first
 * when needed. For the provider and for `export`: nothing else may hold a key. TPKS_NOT_PERMITTED
 * for a key that lives in a token.
 */
TPKS_API TPKS_CHECK tpks_result tpks_load_key(TPKS *ks, const TPKS_RECORD *record,
                                              TPKS_SECRET **pkcs8);
/* May programs load this name through the provider (directive `allow`)? Ask before loading. */
TPKS_API TPKS_CHECK tpks_result tpks_allowed(const TPKS *ks, const char *name);
/* Writes one line to where the directive `log` says, if anywhere; never fails the caller. */
TPKS_API void tpks_log(const TPKS *ks, const char *event, const char *record_name,
                       tpks_result result);

/* ---- keys that never leave their token ------------------------------------------------------- */

/*
 * The private key of a record whose home is TPKS_HOME_TOKEN, ready for use. Counted by reference,
 * used by any number of threads at once, outlives its TPKS and its record. It may be used after a
 * fork: the child drops what it inherited and logs in by itself with its first operation (which
 * needs the token, the PIN file and the right to both; with pin-source=callback it fails). The
 * login of a process is made once, is shared by all its keys and lasts until the process ends,
 * whatever the directive `hsm-session` says.
 */
typedef struct tpks_token_key TPKS_TOKEN_KEY;

/*
 * Proves the record (unlocking the keystore first when needed), finds the key on its token and
 * proves that it is the private half of the record's public key, so that errors come at load.
 * TPKS_KEY_MISSING, TPKS_MISMATCH (another key, or several, under its id), TPKS_TOKEN_MISSING (also
 * when the configured token is another one), TPKS_BAD_INPUT (the home is another), and what
 * tpks_unlock() may say. Does not look at `allow`. Belongs to the thread of `ks`.
 */
TPKS_API TPKS_CHECK tpks_result tpks_token_key_open(TPKS *ks, const TPKS_RECORD *record,
                                                    TPKS_TOKEN_KEY **out);
/* One more reference; returns `key`. Any thread. */
TPKS_API TPKS_TOKEN_KEY *tpks_token_key_up_ref(TPKS_TOKEN_KEY *key);
/* Gives one reference back; NULL is ignored. Makes no call of the PKCS#11 module: may be called
 * from provider teardown. Any thread. */
TPKS_API void tpks_token_key_free(TPKS_TOKEN_KEY *key);

/* PKCS#11 mechanisms; all take what was hashed and, with RSA_PKCS, encoded before. */
typedef enum tpks_mechanism {
    TPKS_RSA_PKCS = 1, /* CKM_RSA_PKCS: sign, decrypt */
    TPKS_RSA_PSS = 2,  /* CKM_RSA_PKCS_PSS: sign */
    TPKS_RSA_RAW = 3,  /* CKM_RSA_X_509: decrypt */
    TPKS_ECDSA = 4,    /* CKM_ECDSA: sign */
    TPKS_RSA_OAEP = 5  /* CKM_RSA_PKCS_OAEP, empty label: decrypt */
} tpks_mechanism;

typedef struct tpks_token_op {
    tpks_mechanism mechanism;
    /* By OpenSSL's name, "SHA1" to "SHA512"; only PSS and OAEP look at these. */
    const char *digest;
    const char *mgf1_digest; /* NULL: `digest` */
    size_t salt_size;        /* PSS, in bytes */
} tpks_token_op;

/*
 * Signs. `in` is, with RSA_PKCS, the DER of the DigestInfo (RFC 8017) or TLS 1.0's 36 bytes, with
 * RSA_PSS and ECDSA the digest. `out` gets, with RSA, the signature, as long as the modulus; with
 * ECDSA r and s (PKCS#11), each as long as the order of the curve. *out_size is the room in `out`
 * before, the length after. A token that was away is logged in to again, and the operation done
 * once more. TPKS_BAD_INPUT (wrong mechanism for the key, unknown digest, too little room, or the
 * token refuses the data), TPKS_NOT_PERMITTED (the record's policy, or the token's), and
 * TPKS_UNSUPPORTED (the token has no such mechanism), TPKS_KEY_MISSING, TPKS_TOKEN_MISSING,
 * TPKS_HSM_UNAVAILABLE, and TPKS_WRONG_SECRET or TPKS_PIN_LOCKED of a new login. Any thread.
 */
TPKS_API TPKS_CHECK tpks_result tpks_token_key_sign(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                                    const unsigned char *in, size_t in_size,
                                                    unsigned char *out, size_t *out_size);
/*
 * Decrypts `in`, as long as the modulus; as tpks_token_key_sign(). The token removes the padding:
 * what it refuses is TPKS_BAD_INPUT, whatever the reason. With RSA_RAW `out` gets as many bytes as
 * the modulus has.
 */
TPKS_API TPKS_CHECK tpks_result tpks_token_key_decrypt(TPKS_TOKEN_KEY *key, const tpks_token_op *op,
                                                       const unsigned char *in, size_t in_size,
                                                       unsigned char *out, size_t *out_size);

/* ---- changes: each is one transaction, read back before it is committed ---------------------- */

/* What `name` may be: 1 to 255 bytes of UTF-8 without control characters, not starting with '-' or
 * '/'. */
TPKS_API TPKS_CHECK tpks_result tpks_name_check(const char *name);

/*
 * Adds a record. `pkcs8` is a PKCS#8 DER private key of a supported type; `certs` (may be NULL)
 * the leaf and its chain: the leaf must carry the key's public half (TPKS_MISMATCH).
 * `id` (may be NULL) gets the record's id. TPKS_EXISTS when the name is taken.
 */
TPKS_API TPKS_CHECK tpks_result tpks_add(TPKS *ks, const char *name, const TPKS_SECRET *pkcs8,
                                         const STACK_OF(X509) * certs, unsigned policy,
                                         unsigned char id[TPKS_ID_SIZE]);
/*
 * Adds a record whose key is made in the configured token and never leaves it. `key_type` is
 * "RSA:2048" to "RSA:8192", "EC:P-256", "EC:P-384" or "EC:P-521"; `policy` is TPKS_MAY_SIGN, with
 * RSA also TPKS_MAY_DECRYPT. An unfinished record is committed first, so that the object which a
 * crash leaves on the token can be explained; making the record again begins by destroying it.
 * `id` (may be NULL) gets the record's id. TPKS_EXISTS, TPKS_UNSUPPORTED (the token can't).
 */
TPKS_API TPKS_CHECK tpks_result tpks_generate_in_token(TPKS *ks, const char *name,
                                                       const char *key_type, unsigned policy,
                                                       unsigned char id[TPKS_ID_SIZE]);
/*
 * Adds a record for a key that is on the configured token already: the one that `source`, a record
 * of any keystore whose home is TPKS_HOME_TOKEN, speaks of. It is found, and proven to be the
 * private half of that record's public key, first; it needs a CKA_ID of its own. Both keystores use
 * it from then on. `certs` and `id` as in tpks_add(); `policy` as in tpks_generate_in_token().
 * TPKS_TOKEN_MISSING (this keystore's token is another one), TPKS_KEY_MISSING, TPKS_MISMATCH,
 * TPKS_UNSUPPORTED, TPKS_BAD_INPUT (the source's home is another), TPKS_EXISTS.
 */
TPKS_API TPKS_CHECK tpks_result tpks_adopt_token_key(TPKS *ks, const char *name,
                                                     const TPKS_RECORD *source,
                                                     const STACK_OF(X509) * certs, unsigned policy,
                                                     unsigned char id[TPKS_ID_SIZE]);
/*
 * Replaces the certificates of a record and, when `pkcs8` is not NULL, its key with them. The
 * record must still be at the version that was read (TPKS_CONFLICT).
 */
TPKS_API TPKS_CHECK tpks_result tpks_set_cert(TPKS *ks, const TPKS_RECORD *record,
                                              const TPKS_SECRET *pkcs8,
                                              const STACK_OF(X509) * certs);
TPKS_API TPKS_CHECK tpks_result tpks_set_policy(TPKS *ks, const TPKS_RECORD *record,
                                                unsigned policy);
TPKS_API TPKS_CHECK tpks_result tpks_rename(TPKS *ks, const TPKS_RECORD *record, const char *name);
TPKS_API TPKS_CHECK tpks_result tpks_remove(TPKS *ks, const TPKS_RECORD *record);
/*
 * The same, and destroys the key on its token for good; one that is gone already is fine. Objects
 * of another type that have the same CKA_ID stay. TPKS_BAD_INPUT: its home is no token.
 * TPKS_MISMATCH: the token has another key, or several, with its CKA_ID; nothing was changed.
 */
TPKS_API TPKS_CHECK tpks_result tpks_remove_with_key(TPKS *ks, const TPKS_RECORD *record);
/*
 * Clears away what a crash has left of tpks_generate_in_token() or tpks_remove_with_key(): destroys
 * the key on its token and removes the unfinished record. TPKS_NOT_FOUND: there is none.
 */
TPKS_API TPKS_CHECK tpks_result tpks_discard_unfinished(TPKS *ks, const char *name);
/* A private key of this keystore on its token that no record uses, or may be there. */
typedef struct tpks_leftover {
    const char *name; /* of the record that it was made for */
    const char *token_serial;
    const unsigned char *cka_id;
    size_t cka_id_size;
    bool unfinished; /* tpks_discard_unfinished() clears it away; else the token's own tool */
} tpks_leftover;
typedef tpks_result tpks_leftover_fn(void *arg, const tpks_leftover *leftover);
/* Calls `each` with all of them; needs the token. None in a database of Trustpoint. */
TPKS_API TPKS_CHECK tpks_result tpks_each_leftover(TPKS *ks, tpks_leftover_fn *each, void *arg);

/*
 * Joins the following changes into one transaction, ended by tpks_commit() or tpks_rollback().
 * After one of them has failed in the database (TPKS_EXISTS, say), nothing of the transaction can
 * be kept: the others and tpks_commit() fail too.
 */
TPKS_API TPKS_CHECK tpks_result tpks_begin(TPKS *ks);
TPKS_API TPKS_CHECK tpks_result tpks_commit(TPKS *ks);
TPKS_API void tpks_rollback(TPKS *ks);

/* ---- slots, status, care --------------------------------------------------------------------- */

typedef struct tpks_slot_info {
    unsigned char id[TPKS_ID_SIZE];
    const char *kind;  /* "hsm-aes", "hsm-rsa-oaep", "password", "recovery", "software" */
    const char *state; /* "pending", "active", "stale", "retired" */
    const char *label;
    const char *host;
    const char *token_label;     /* "" unless an HSM slot */
    const char *token_serial;    /* "" unless an HSM slot */
    const char *wrap;            /* wrap algorithm, such as "aes-kw" */
    const unsigned char *cka_id; /* 16 bytes, NULL unless an HSM slot */
    tpks_kdf_cost cost;          /* zero unless a password slot */
    bool cost_chosen;            /* it was asked for: tpks_upgrade_password() leaves it alone */
    int64_t created;
} tpks_slot_info;
typedef tpks_result tpks_slot_fn(void *arg, const tpks_slot_info *slot);
TPKS_API TPKS_CHECK tpks_result tpks_each_slot(TPKS *ks, tpks_slot_fn *each, void *arg);

/*
 * Changes of the slots; the keystore is opened for writing, and unlocked first when it is not yet:
 * call tpks_unlock_with() before when the HSM can't. `id` (may be NULL) gets the new slot's id.
 */
TPKS_API TPKS_CHECK tpks_result tpks_slot_add_password(TPKS *ks, const TPKS_SECRET *password,
                                                       tpks_kdf_cost cost,
                                                       unsigned char id[TPKS_ID_SIZE]);
/* `recovery_key` gets the printable key; the caller frees it. */
TPKS_API TPKS_CHECK tpks_result tpks_slot_add_recovery(TPKS *ks, TPKS_SECRET **recovery_key,
                                                       unsigned char id[TPKS_ID_SIZE]);
/* A KEK on the token of `token_uri`, or on the configured one (NULL): one more host, say. */
TPKS_API TPKS_CHECK tpks_result tpks_slot_add_hsm(TPKS *ks, const char *token_uri,
                                                  unsigned char id[TPKS_ID_SIZE]);
/* A new KEK on the same token, without a password; the old slot becomes stale. */
TPKS_API TPKS_CHECK tpks_result tpks_rotate_kek(TPKS *ks, unsigned char id[TPKS_ID_SIZE]);
/* A new password in the place of the one of slot `old`, in one transaction. */
TPKS_API TPKS_CHECK tpks_result tpks_password_change(TPKS *ks,
                                                     const unsigned char old[TPKS_ID_SIZE],
                                                     const TPKS_SECRET *password,
                                                     tpks_kdf_cost cost,
                                                     unsigned char id[TPKS_ID_SIZE]);
/*
 * To be called when the work for which tpks_unlock_with() opened a keystore for writing is done:
 * when that was with a password whose slot was made with less than this machine's default Argon2id
 * cost (see tpks_kdf_cost), the same password gets a new salt and at least that cost, in one
 * transaction, opened once more before it is committed. A cost that was asked for is left alone,
 * nothing ever becomes less, and keystores opened for loading are never written. Takes two runs of
 * Argon2id when there is something to do. Best effort: true if the slot was renewed; a failure is
 * only logged.
 */
TPKS_API bool tpks_upgrade_password(TPKS *ks);
/*
 * Removes a slot, never the last way back nor the last slot (TPKS_NOT_PERMITTED), whatever other
 * processes remove at the same time. The KEK of an HSM slot stays on its token, under a retired
 * slot that names it, unless `destroy_key`. Beside a database of Trustpoint's: TPKS_NOT_FOUND with
 * the path when the slots there were put aside instead (see tpks_slots_aside()).
 */
TPKS_API TPKS_CHECK tpks_result tpks_slot_remove(TPKS *ks, const unsigned char id[TPKS_ID_SIZE],
                                                 bool destroy_key);
/*
 * Nobody got the recovery key that tpks_slot_add_recovery() gave through this handle last: its slot
 * is removed again, even if it is the last way back. TPKS_NOT_FOUND: none was added.
 */
TPKS_API TPKS_CHECK tpks_result tpks_slot_take_back(TPKS *ks);
/*
 * Passwords and recovery keys for a database of Trustpoint's lie in a file beside it. When one that
 * is damaged, or for a DEK of the past, was in the way of a change: the path where it is kept now;
 * NULL: there was none. Valid as long as `ks`.
 */
TPKS_API const char *tpks_slots_aside(const TPKS *ks);
/* The id of the slot that unlocked the keystore; false when it is locked. */
TPKS_API bool tpks_unlocked_slot(const TPKS *ks, unsigned char id[TPKS_ID_SIZE]);

/*
 * Restore: the token has lost the KEK (or is a new one), a password or recovery key opens the DEK,
 * a new KEK is made and the slot of this token renewed. One process at a time does it; others wait
 * and find it done. Loading a key does the same by itself, with the sources that the directive
 * `restore` lists for loaders.
 */
/* How long, in seconds, a process waits while another one restores: a human may be typing there. */
#define TPKS_RESTORE_WAIT 120
typedef struct tpks_restore_params {
    const TPKS_SECRET *secret; /* password or recovery key; NULL: from the sources */
    const char *token_uri;     /* onto another token than the configured one; NULL: that */
    const TPKS_SECRET
        *so_pin;  /* initialise a blank token when the named one is not there; NULL: no */
    bool dry_run; /* only look */
} tpks_restore_params;

typedef struct tpks_restore_report {
    tpks_result found; /* TPKS_OK: nothing was missing */
    char why[1024];    /* what was found, in words; "" when nothing was missing */
    bool restored;
    bool upgraded; /* tpks_upgrade_password() was called and had something to do */
    bool dek_file; /* what was, or would be, restored is a DEK file, not a KEK on the token */
} tpks_restore_report;

/*
 * TPKS_OK when the keystore can be unlocked afterwards; with `dry_run` also when it could not,
 * unless a restore would be refused before anybody is asked: then that error. TPKS_WRONG_SECRET: a
 * secret was given and is the wrong one. TPKS_KEK_MISSING, TPKS_KEK_FOREIGN: none was given; the
 * text lists the sources that were tried. TPKS_RESTORE_PENDING: another process kept the lock for
 * TPKS_RESTORE_WAIT; the text names it where that is known.
 */
TPKS_API TPKS_CHECK tpks_result tpks_restore(const tpks_options *options,
                                             const tpks_restore_params *params,
                                             tpks_restore_report *report);

/*
 * Header, DEKs, slots and wraps alone, into a new file of keystore format without records. The
 * library keeps such a copy in the state folder (KEYSTORE.hdr, and .hdr.old before it).
 */
TPKS_API TPKS_CHECK tpks_result tpks_header_backup(TPKS *ks, const char *path);
/*
 * Puts them back into the configured database, whose own may be damaged, after the copy has
 * proven itself by unlocking (with `secret`, or NULL: this machine's HSM) and every record opens
 * with it. A copy older than this host's anchor or the database needs accept_new_anchor. All of it
 * is proven in the transaction that writes, and read back before its end. TPKS_CONFLICT: another
 * process changed header or slots while the copy was unlocked.
 */
TPKS_API TPKS_CHECK tpks_result tpks_header_restore(const tpks_options *options, const char *path,
                                                    const TPKS_SECRET *secret);

typedef struct tpks_status_info {
    unsigned char keystore_id[TPKS_ID_SIZE];
    char label[256];
    unsigned format;
    uint64_t generation;
    uint64_t records;
    unsigned slots_active;
    unsigned ways_back;       /* active password and recovery slots */
    bool software;            /* storage without an HSM */
    const char *dek_location; /* "hsm", "process"; "locked" before tpks_unlock(); "none" where
                                 Trustpoint has its keys in the clear */
    char token_label[33];     /* of the HSM slot in use; "" if none */
    char token_serial[17];
    const char *wrap;  /* wrap algorithm of the slot in use, "" if none */
    bool anchor_known; /* this host has an anchor for this keystore */
    uint64_t in_token; /* records whose key lives in a token, so that no backup has it */
} tpks_status_info;
/* What can be said now; after tpks_unlock() it includes how the DEK is held. */
TPKS_API TPKS_CHECK tpks_result tpks_status(TPKS *ks, tpks_status_info *out);

/*
 * A consistent copy of the keystore: a new SQLite file of mode 0600, synced, whatever the keystore
 * itself is stored in; or, when `target` is "postgresql:CONNINFO", tables in that database's
 * schema, which has none yet. TPKS_EXISTS.
 */
TPKS_API TPKS_CHECK tpks_result tpks_backup(TPKS *ks, const char *target);
/*
 * Proves the database's own integrity, the header and every record: opens each key, compares
 * its public half and certificates. Calls `bad` (may be NULL) for each one that fails, also one
 * that can't even be read, and goes on; the result is that of the first failure.
 */
TPKS_API TPKS_CHECK tpks_result tpks_verify(TPKS *ks, tpks_progress_fn *progress, tpks_bad_fn *bad,
                                            void *arg, uint64_t *proven);

#ifdef __cplusplus
}
#endif

#endif
