/*
 * hsm.h - the KEK's home: a PKCS#11 token, reached through p11-kit
 *
 * An HSM handle is a logged-in session with one token. With `hsm-session = load` it is opened for
 * one load and closed with it; the module stays initialised. With `process` the login, and the
 * DEKs unwrapped into the token, stay with a keeper session of this process and handles borrow
 * from it. Nothing here is called from provider teardown; an atexit handler, registered after the
 * first C_Initialize, finalises what this process initialised. After a fork every handle,
 * session and cached object of the parent is forgotten, never used, never closed.
 *
 * C_Initialize to C_Login runs under a host-wide lock (a file in the state folder), with signals
 * blocked, because SoftHSM 2.6 rewrites its token file at each login: readers meanwhile see no
 * token, and a process killed there destroys it. Without permission for the lock, or when it
 * can't be had in time, retries with growing random pauses stand in for it.
 */
#ifndef TRUSTPOINT_HSM_H
#define TRUSTPOINT_HSM_H

#include "keystore.h"

#define CKA_ID_SIZE 16
#define DEK_SIZE 32
#define WRAPPED_MAX 1024 /* the longest wrapped DEK: RSA-OAEP with an 8192-bit key */

/* Numbers of format 1 (column wrap.algorithm): never renumbered. */
typedef enum wrap_algorithm {
    WRAP_NONE = 0,
    WRAP_AES_KW = 1,          /* CKM_AES_KEY_WRAP, RFC 3394 */
    WRAP_AES_KWP = 2,         /* CKM_AES_KEY_WRAP_KWP, RFC 5649 */
    WRAP_RSA_OAEP_SHA256 = 3, /* CKM_RSA_PKCS_OAEP, RFC 8017, MGF1 with the same digest */
    WRAP_RSA_OAEP_SHA1 = 4,
    WRAP_AES_CBC_PAD = 5, /* CKM_AES_CBC_PAD, 16-byte IV */
    WRAP_AES_GCM = 6,     /* C_Encrypt/C_Decrypt with CKM_AES_GCM, 12-byte IV, no AAD */
    WRAP_PASSWORD_GCM =
        7,         /* host: AES-256-GCM under a key derived from a password or recovery key */
    WRAP_FILE = 8, /* storage without an HSM: the DEK's file */

    /* How Trustpoint wraps its DEK: numbers of this process only, never stored. */
    WRAP_TRUSTPOINT_ECB = 100, /* 8 random bytes, then CKM_AES_ECB of the DEK */
    WRAP_TRUSTPOINT_CWRAP,     /* CKM_AES_KEY_WRAP, _PAD or _KWP: which one is not recorded */
    WRAP_TRUSTPOINT_KW_PAD,    /* CKM_AES_KEY_WRAP_PAD, which each module understands otherwise */
    WRAP_TRUSTPOINT_CBC_PAD,   /* C_Encrypt with CKM_AES_CBC_PAD, 16-byte IV */
    WRAP_TRUSTPOINT_CBC,       /* C_Encrypt with CKM_AES_CBC, 16-byte IV */
    WRAP_TRUSTPOINT_BACKUP,    /* AES-256-GCM under Argon2id of a password */
    WRAP_TRUSTPOINT_RAW        /* in the database, in the clear */
} wrap_algorithm;

/* "aes-kw" and so on; "unknown" for a number that is not listed. */
const char *wrap_algorithm_name(wrap_algorithm algorithm);

typedef struct hsm HSM;

typedef struct hsm_options {
    const char *token_uri; /* RFC 7512, with module-path or module-name, pin-source; no pin-value */
    const char *lock_dir;  /* lock and refused-PIN memory live here */
    bool keep;             /* hsm-session = process */
    bool write;            /* a read-write session, to make or destroy a KEK */
    tpks_ask_fn *ask;      /* for pin-source=callback only */
    void *ask_arg;
    const char *keystore_label; /* for the prompt */
} hsm_options;

/*
 * Checks a token URI without touching anything: scheme, every attribute known, exactly one
 * module-path or module-name, pin-source `file:` or `callback`, no pin-value. TPKS_BAD_CONFIG.
 */
TPKS_CHECK tpks_result hsm_check_uri(const char *token_uri);
/*
 * Writes a token URI; an empty or missing label or serial number is left out. Free with
 * OPENSSL_free(). TPKS_BAD_CONFIG: it can't be written so that hsm_check_uri() takes it.
 */
TPKS_CHECK tpks_result hsm_make_uri(const char *label, const char *serial, const char *module_path,
                                    const char *pin_file, char **out);
/* Does this token URI name pin-source=callback? Then no password may be asked for in the same load.
 */
bool hsm_pin_is_asked(const char *token_uri);

/*
 * Finds the token and logs in. A keeper lives until the process exits and is known by URI and state
 * folder; with `write` there is none. TPKS_BAD_CONFIG when several tokens match. TPKS_TOKEN_MISSING
 * only after the retries, TPKS_HSM_UNAVAILABLE for every other CKR code, TPKS_WRONG_SECRET once for
 * a refused PIN (remembered in the state folder until the PIN file changes: then TPKS_PIN_LOCKED
 * without a try), TPKS_PIN_LOCKED also when the token says locked or final try, TPKS_NOT_PERMITTED
 * for an unreadable PIN file or token.
 */
TPKS_CHECK tpks_result hsm_open(const hsm_options *options, HSM **out);
void hsm_close(HSM *hsm);

const char *hsm_token_label(const HSM *hsm);  /* without padding */
const char *hsm_token_serial(const HSM *hsm); /* without padding */
const char *hsm_module_name(const HSM *hsm);  /* for messages */

/*
 * Initialises a blank token with the label, and the user PIN, that the URI names: for a machine
 * whose token is gone. The token is one that will match the URI: in its slot, when it names one,
 * and never by a serial number that only an initialised one gets. One that matches but has no user
 * PIN yet, because that was interrupted, gets it. TPKS_EXISTS when a token matches already: it is
 * left alone. TPKS_BAD_CONFIG also when another token has the label; TPKS_WRONG_SECRET for a PIN or
 * SO PIN that the token does not take, TPKS_TOKEN_MISSING without a blank one. TPKS_HSM_UNAVAILABLE
 * when the module may hide a token for the moment: nothing was changed.
 */
TPKS_CHECK tpks_result hsm_init_token(const hsm_options *options, const TPKS_SECRET *so_pin);

/*
 * A KEK is found by its CKA_ID alone, on this token. TPKS_KEK_MISSING: the search succeeded and
 * found nothing. Two objects with one id are TPKS_KEK_FOREIGN. A KEK of Trustpoint's has a label
 * instead, and two AES keys with that label are TPKS_KEK_FOREIGN.
 */
TPKS_CHECK tpks_result hsm_find_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE]);
TPKS_CHECK tpks_result hsm_find_kek_by_label(HSM *hsm, const char *label);

/*
 * Makes a KEK and wraps `dek` with it: tries the algorithms in the order of the manual by doing
 * each (generate, wrap, unwrap into the token, prove), and leaves exactly one new key on the token,
 * or none on failure. `wrapped` has room for WRAPPED_MAX bytes; `iv` for 16, *iv_size gets 0, 12
 * or 16.
 */
TPKS_CHECK tpks_result hsm_make_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE],
                                    const char *label, const TPKS_SECRET *dek,
                                    wrap_algorithm *algorithm, unsigned char *wrapped,
                                    size_t *wrapped_size, unsigned char iv[16], size_t *iv_size);
/* Destroys every object with this id that hsm_make_kek() makes. Not finding one is fine. */
TPKS_CHECK tpks_result hsm_destroy_kek(HSM *hsm, const unsigned char cka_id[CKA_ID_SIZE]);

/*
 * The same for a database of Trustpoint, whose KEK is known by `label` and has no id: `legacy` as
 * 0.4 and 0.5 make theirs, else as 0.6 does. The new KEK is not under the label yet, so that at no
 * time two AES keys share it, but LABEL.next; what earlier calls have left there is kept, as
 * LABEL.unused-TIME. After the database has what was wrapped, hsm_settle_trustpoint_kek() gives it
 * the label; a key that has it is kept, as LABEL.replaced-TIME. TPKS_KEK_FOREIGN: several keys have
 * the label.
 */
#define HSM_NEXT_SUFFIX ".next"
#define KEK_LABEL_MAX 320
TPKS_CHECK tpks_result hsm_make_trustpoint_kek(HSM *hsm, const char *label, bool legacy,
                                               const TPKS_SECRET *dek, wrap_algorithm *algorithm,
                                               unsigned char *wrapped, size_t *wrapped_size,
                                               unsigned char iv[16], size_t *iv_size);
/* Would it be refused for the keys that have the label now? TPKS_KEK_FOREIGN. */
TPKS_CHECK tpks_result hsm_check_trustpoint_kek(HSM *hsm, const char *label);
/* The one that `hsm` has made, else the one that another process has left. Nothing happens without
 * one, or when another process has done it. */
TPKS_CHECK tpks_result hsm_settle_trustpoint_kek(HSM *hsm, const char *label);
/* Destroys what `hsm` has made: for when the database has not taken what it wrapped. */
TPKS_CHECK tpks_result hsm_discard_trustpoint_kek(HSM *hsm);

/* What hsm_unwrap() needs to know. */
typedef struct hsm_wrapped {
    const unsigned char *cka_id; /* of the KEK; NULL: it is the one AES key with this label */
    const char *label;           /* CKA_LABEL, UTF-8; looked at without a cka_id only */
    wrap_algorithm algorithm;
    const unsigned char *iv;
    size_t iv_size;
    const unsigned char *data;
    size_t size;
} hsm_wrapped;

/* A DEK inside the token: an AES session object, SENSITIVE and not EXTRACTABLE, that can do
 * AES-GCM. */
typedef struct hsm_dek HSM_DEK;

/*
 * Unwraps the DEK into the token, reads SENSITIVE and EXTRACTABLE back (hardening them where the
 * token ignored the template) and tries AES-GCM with it. TPKS_UNSUPPORTED: this token can't hold or
 * use it so (fall back, if policy allows, to hsm_unwrap_out()). TPKS_KEK_MISSING as hsm_find_kek().
 * A KEK that refuses the blob is TPKS_KEK_FOREIGN: it is never said whether key or blob is wrong.
 * With hsm-session=process the DEK is kept under `dek_id` and found there again without unwrapping.
 */
TPKS_CHECK tpks_result hsm_unwrap(HSM *hsm, const hsm_wrapped *wrapped,
                                  const unsigned char dek_id[16], HSM_DEK **out);
/* Before its HSM handle is closed. Ends the use of a DEK: destroys the object unless a keeper keeps
 * it. NULL is ignored. */
void hsm_dek_free(HSM_DEK *dek);
/* Unwraps the DEK into this process's locked memory. */
TPKS_CHECK tpks_result hsm_unwrap_out(HSM *hsm, const hsm_wrapped *wrapped, TPKS_SECRET **dek);

/*
 * AES-256-GCM inside the token, 12-byte nonce, 16-byte tag after the ciphertext.
 * hsm_gcm_open(): `out` has room for in_size bytes; on any error it is wiped and the result is
 * TPKS_TAMPERED for a refused tag (or what a token may say for one), TPKS_HSM_UNAVAILABLE
 * otherwise.
 */
TPKS_CHECK tpks_result hsm_gcm_open(HSM_DEK *dek, const unsigned char nonce[12],
                                    const unsigned char *aad, size_t aad_size,
                                    const unsigned char *in, size_t in_size, unsigned char *out,
                                    size_t *out_size);
/* `out` has room for in_size + 16 bytes. */
TPKS_CHECK tpks_result hsm_gcm_seal(HSM_DEK *dek, const unsigned char nonce[12],
                                    const unsigned char *aad, size_t aad_size,
                                    const unsigned char *in, size_t in_size, unsigned char *out,
                                    size_t *out_size);

#endif
