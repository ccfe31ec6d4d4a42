/*
 * slot.h - the ways to the DEK
 *
 * Each kind makes a slot row with its wrap row from a DEK in memory, and opens them again. What a
 * slot gives is, but for a DEK file, not yet proven: the caller checks it with head_prove_dek().
 */
#ifndef TRUSTPOINT_SLOT_H
#define TRUSTPOINT_SLOT_H

#include "head.h"

/* What is made: a slot and how it holds the keystore's current DEK. */
typedef struct new_slot {
    slot_row slot;
    wrap_row wrap;
} new_slot;

void new_slot_clear(new_slot *made);

/* What is written down before a KEK is made, so that each object on a token can be explained. */
TPKS_CHECK tpks_result slot_plan_hsm(OSSL_LIB_CTX *libctx, const head *h, const HSM *hsm,
                                     new_slot *out);
/* Makes the planned KEK and wraps the DEK with it; on failure none is left on the token. */
TPKS_CHECK tpks_result slot_fill_hsm(const head *h, HSM *hsm, const TPKS_SECRET *dek,
                                     new_slot *planned);
/* Both at once, for a keystore that does not exist yet. */
TPKS_CHECK tpks_result slot_make_hsm(OSSL_LIB_CTX *libctx, const head *h, HSM *hsm,
                                     const TPKS_SECRET *dek, new_slot *out);
/* Extension of a password slot, without a value: its cost was asked for, and is never changed. */
#define SLOT_COST_CHOSEN 1

bool slot_cost_is_chosen(const slot_row *slot);
/* Argon2id of a password; `cost` all zero: the default of this machine. */
TPKS_CHECK tpks_result slot_make_password(OSSL_LIB_CTX *libctx, const head *h,
                                          const TPKS_SECRET *password, tpks_kdf_cost cost,
                                          const TPKS_SECRET *dek, new_slot *out);
/* The same password under a new salt and `cost`, in the place of `old`, whose id and label stay. */
TPKS_CHECK tpks_result slot_renew_password(OSSL_LIB_CTX *libctx, const head *h, const slot_row *old,
                                           const TPKS_SECRET *password, const tpks_kdf_cost *cost,
                                           const TPKS_SECRET *dek, new_slot *out);
/* A fresh recovery key, printable in *text. */
TPKS_CHECK tpks_result slot_make_recovery(OSSL_LIB_CTX *libctx, const head *h,
                                          const TPKS_SECRET *dek, new_slot *out,
                                          TPKS_SECRET **text);
/* Storage without an HSM: the DEK in STATE/KEYSTORE.dek, mode 0600. */
TPKS_CHECK tpks_result slot_make_software(OSSL_LIB_CTX *libctx, const head *h,
                                          const char *state_dir, const TPKS_SECRET *dek,
                                          new_slot *out);
/* Only the file, for the slot that is there already. */
TPKS_CHECK tpks_result slot_restore_software(const head *h, const char *state_dir,
                                             const TPKS_SECRET *dek);
/* Is there a file, whatever is in it? Also true where nobody may look. */
bool slot_has_software_file(const head *h, const char *state_dir);
/* Removes the DEK's file of a keystore that was never finished. */
void slot_undo_software(const head *h, const char *state_dir);

/* Is it a slot of this token: by the serial number; one of Trustpoint's also by the label alone. */
bool slot_is_on(const slot_row *slot, const HSM *hsm);
/* `where`: "auto", "hsm" or "process", as the directive `dek` says. */
TPKS_CHECK tpks_result slot_open_hsm(OSSL_LIB_CTX *libctx, const head *h, const slot_row *slot,
                                     HSM *hsm, const char *where, DEK **out);
/* A password or recovery key; the wrong one is TPKS_WRONG_SECRET by the slot's commitment. */
TPKS_CHECK tpks_result slot_open_secret(OSSL_LIB_CTX *libctx, const head *h, const slot_row *slot,
                                        const TPKS_SECRET *secret, DEK **out);
/* This may be the only way back: what was made is opened, with its secret, before it is committed.
 */
TPKS_CHECK tpks_result slot_prove_secret(OSSL_LIB_CTX *libctx, const head *h, const new_slot *made,
                                         const TPKS_SECRET *secret);
/* The only one that is proven here: a file that is damaged or another keystore's is
 * TPKS_KEK_FOREIGN. TPKS_KEK_MISSING: there is none. */
TPKS_CHECK tpks_result slot_open_software(OSSL_LIB_CTX *libctx, const head *h,
                                          const char *state_dir, DEK **out);

#endif
