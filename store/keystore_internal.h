/*
 * keystore_internal.h - an open keystore, as the files of this folder share it
 */
#ifndef TRUSTPOINT_KEYSTORE_INTERNAL_H
#define TRUSTPOINT_KEYSTORE_INTERNAL_H

#include "error.h"
#include "file.h"
#include "schema.h"
#include "slot.h"

struct tpks {
    TPKS_CONFIG *config; /* a reference of our own */
    char *section;       /* "" for [keystore] */
    OSSL_LIB_CTX *libctx;
    tpks_access access;
    bool accept_new_anchor;
    bool no_restore;
    bool caller_compares;
    char *token; /* instead of the configured one; NULL: that */
    tpks_ask_fn *ask;
    void *ask_arg;
    database d;
    const schema *schema; /* whose rows they are */
    head head;
    TPKS *sidecar; /* see sidecar.h; NULL: not looked for yet, or there is none */
    char *aside;   /* where a file of such slots was put; NULL: nowhere */
    HSM *hsm;      /* while unlocked through it */
    DEK *dek;      /* NULL: locked */
    unsigned char slot_id[TPKS_ID_SIZE];  /* of the slot that unlocked */
    TPKS_SECRET *due_password;            /* that opened a slot of too low a cost; NULL: none */
    unsigned char due_slot[TPKS_ID_SIZE]; /* that slot */
    unsigned char added[TPKS_ID_SIZE];    /* the recovery slot that was added last */
    bool has_added;                       /* there is one */
    bool suspect;               /* something failed: not to be used again for another load */
    bool in_change;             /* between tpks_begin() and its end */
    bool anchor_due;            /* this host has no anchor of it, or is to take a new one */
    tpks_result change_result;  /* of the first change since tpks_begin() that failed */
    uint64_t generation_before; /* the change's starting point */
    unsigned char seal_before[PROOF_SIZE];
};

/* The slot that unlocked; NULL: locked, or it was removed since. */
const slot_row *keystore_slot(const TPKS *ks);
/* A directive of this keystore's section. */
const char *keystore_setting(const TPKS *ks, const char *directive);
/* The folder for locks and refused PINs, which loaders may write in; `out` has PATH_SIZE bytes. */
const char *keystore_lock_dir(const TPKS *ks, char *out);
/* The token to use: the configured one unless another was given, else what the database names;
 * NULL: none. */
const char *keystore_token(const TPKS *ks);
/* "keystore NAME (1a2b3c4d)" for messages and prompts. */
void keystore_describe(const TPKS *ks, char *out, size_t size);
/* The texts that hsm_options point to. */
typedef struct hsm_texts {
    char label[320];
    char locks[PATH_SIZE];
} hsm_texts;
/* The prompt's and HSM's options as this keystore has them. TPKS_BAD_CONFIG: it names no token. */
TPKS_CHECK tpks_result keystore_hsm_options(const TPKS *ks, bool write, hsm_texts *texts,
                                            hsm_options *out);
TPKS_CHECK tpks_result keystore_hsm_open(TPKS *ks, bool write, HSM **out);
/* Forgets the DEK. */
void keystore_lock(TPKS *ks);
/* Closes for good. */
void keystore_free(TPKS *ks);
/* Reads header and slots again if another process changed them since. */
TPKS_CHECK tpks_result keystore_refresh(TPKS *ks);
/* Reads header and slots again, after another process changed them; keeps the DEK if it is still
 * current. It is forgotten when it does not prove them: nothing unproven is ever sealed. */
TPKS_CHECK tpks_result keystore_reload(TPKS *ks);
/* Did a reading transaction fail because the connection was lost? It may be tried once more. */
bool keystore_was_cut_off(const TPKS *ks, tpks_result result);
/* Options to handle, without a database. */
TPKS_CHECK tpks_result keystore_new(const tpks_options *options, TPKS **out);

/* ---- create.c ---- */

/* A head with fresh ids for a new DEK, and no slots. */
TPKS_CHECK tpks_result keystore_new_head(TPKS *ks, const char *label);
/* Its check value and seal. */
TPKS_CHECK tpks_result keystore_seal_new(TPKS *ks, const TPKS_SECRET *dek);
/* The state folder and the one for locks, where they are missing. */
TPKS_CHECK tpks_result keystore_make_state_dir(const TPKS *ks);

/* ---- write.c: one change, all or nothing, tried again when another process was faster ---- */

/* Changes the head in memory; what is needed from the HSM was made before. */
typedef tpks_result prepare_fn(TPKS *ks, const void *arg);
/* Writes rows inside the transaction. */
typedef tpks_result apply_fn(TPKS *ks, const void *arg);
/* `prepare` may be NULL. The keystore is unlocked. Both may be called several times. */
TPKS_CHECK tpks_result keystore_change(TPKS *ks, prepare_fn *prepare, apply_fn *apply,
                                       const void *arg);
/* A connection that was lost at the end of a change does not say how it ended: the database does,
 * when it can be asked. False: it does not have the change, or gives no answer. */
bool keystore_is_committed(TPKS *ks);
/* Was it opened for changes? */
TPKS_CHECK tpks_result keystore_check_access(const TPKS *ks);
/* Can its rows be changed as well? */
TPKS_CHECK tpks_result keystore_check_writable(const TPKS *ks);
TPKS_CHECK tpks_result keystore_check_policy(unsigned policy);
/* A record without key, sealed under nothing yet. */
TPKS_CHECK tpks_result keystore_new_record(TPKS *ks, const char *name, unsigned policy,
                                           TPKS_RECORD **out);
/* Seal what `pkcs8` is and write the record, as one change each. An updated record is one more than
 * the stored version. */
TPKS_CHECK tpks_result keystore_insert_record(TPKS *ks, TPKS_RECORD *record,
                                              const TPKS_SECRET *pkcs8);
TPKS_CHECK tpks_result keystore_update_record(TPKS *ks, TPKS_RECORD *record,
                                              const TPKS_SECRET *pkcs8);
TPKS_CHECK tpks_result keystore_delete_record(TPKS *ks, const TPKS_RECORD *record);

/* ---- find.c ---- */

/* Opens what is sealed: the key, or for one that lives in a token the proof of the record. */
TPKS_CHECK tpks_result keystore_open_record(TPKS *ks, const TPKS_RECORD *record,
                                            TPKS_SECRET **pkcs8);

/* ---- unlock.c ---- */

/* Only what this machine has (DEK file or, where there is none, HSM): never a restore. */
TPKS_CHECK tpks_result unlock_machine(TPKS *ks);
/* Is it a DEK file by which this machine unlocks, or would if it were there? A software keystore
 * may have HSM slots, too: then it is the token's turn where there is no file. */
bool unlock_is_by_file(const TPKS *ks);

/* ---- upgrade.c: Argon2id of the cost that suits the machine by now ---- */

/* `password` opened `slot`: a writer keeps it for tpks_upgrade_password() when its cost is too low.
 */
void upgrade_note(TPKS *ks, const slot_row *slot, const TPKS_SECRET *password);
/* Wipes what was noted. */
void upgrade_forget(TPKS *ks);

/* ---- restore.c ---- */

/*
 * After TPKS_KEK_MISSING in a load: brings the KEK back with a secret from the sources that a
 * loader may use, and unlocks. Without a source the result is TPKS_KEK_MISSING or, when another
 * process is at it, TPKS_RESTORE_PENDING; the text says what to type.
 */
TPKS_CHECK tpks_result restore_in_load(TPKS *ks);

/* ---- trustpoint_restore.c ---- */

/* Unlocked: the DEK of a Trustpoint database under a new KEK. Locked again then. */
TPKS_CHECK tpks_result trustpoint_restore(TPKS *ks);
/* Finishes a restore that was killed after the database was written; changes nothing otherwise. */
TPKS_CHECK tpks_result trustpoint_resume(TPKS *ks);
/* Is there a password or recovery key, of Trustpoint's or ours? TPKS_KEK_MISSING. */
TPKS_CHECK tpks_result trustpoint_check_way_back(TPKS *ks);
/* The same, and could what a restore writes be written, into the database and the token? */
TPKS_CHECK tpks_result trustpoint_check_restorable(TPKS *ks);

/* ---- slots.c ---- */

/* The DEK's bytes in locked memory, whereever it is held; the keystore is unlocked. */
TPKS_CHECK tpks_result keystore_dek_copy(TPKS *ks, TPKS_SECRET **out);
/*
 * A new KEK on the configured token: a pending slot is committed first, so that whatever is left
 * on the token by a crash can be explained; then the KEK is made and proven; then the slot becomes
 * active and the token's older ones stale. When no KEK could be made the slot goes again, unless
 * the token can't show that nothing is left there.
 */
TPKS_CHECK tpks_result keystore_add_hsm_slot(TPKS *ks, unsigned char id[TPKS_ID_SIZE]);

/* ---- find.c ---- */

#define BAD_NAME_SIZE 1024 /* longer than any name that we write; a longer one is cut */
/* Every record that matches; see each_readable() of schema.h. */
TPKS_CHECK tpks_result keystore_each_readable(TPKS *ks, const tpks_selector *selector,
                                              schema_each_fn *each, schema_bad_fn *bad, void *arg);
/* How a record that can't be read is called: by its name, or by its id. */
void record_name_of_bad(const TPKS_RECORD *record, char name[BAD_NAME_SIZE]);

/* ---- anchor.c: what this host last saw of a keystore ---- */

#define ANCHOR_HEX (2 * PROOF_SIZE)

typedef struct anchor {
    bool known; /* this host has one */
    char dek[ANCHOR_HEX + 1];
    uint64_t generation;
    char seal[ANCHOR_HEX + 1];
} anchor;

/* The anchor of the keystore that `h` names. TPKS_TAMPERED: malformed. */
TPKS_CHECK tpks_result anchor_read(const TPKS *ks, const head *h, anchor *out);
/* The generation that this host has seen last; 0: it has no anchor. */
uint64_t anchor_generation(const TPKS *ks);
/* Does `h` contradict it? Then the result says how: TPKS_ROLLED_BACK or TPKS_TAMPERED. */
TPKS_CHECK tpks_result anchor_compare(const TPKS *ks, const head *h, const anchor *seen);
/*
 * Remembers the present generation, which is proven, unless a faster process has remembered a later
 * one. Best effort: a host without a state folder has no anchor.
 */
void anchor_write(const TPKS *ks);

/* ---- backup.c ---- */

/* The `store` value of a SQLite file, whose path may be relative; `store` has PATH_SIZE bytes. */
TPKS_CHECK tpks_result backup_store(const char *path, char *store);
/* Header, DEKs, slots and wraps in a new SQLite file of mode 0600. TPKS_EXISTS. */
TPKS_CHECK tpks_result backup_head(const TPKS *ks, const char *path);

/* ---- header.c ---- */

/* Keeps a copy of header and slots in the state folder, and the one before. Best effort. */
void header_keep(const TPKS *ks);

#endif
