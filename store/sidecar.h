/*
 * sidecar.h - our own slots for a database that is not ours
 *
 * Trustpoint keeps no copy of its DEK under a password in 0.6 and later, and one in a form of its
 * own before. Passwords and recovery keys of ours lie in a file beside it, STATE/ID.slots.db: a
 * keystore of format 1 without records, whose DEK is Trustpoint's.
 */
#ifndef TRUSTPOINT_SIDECAR_H
#define TRUSTPOINT_SIDECAR_H

#include "keystore_internal.h"

/* The one of this keystore, opened when it is first asked for; NULL: it has none. It belongs to
 * `ks`. */
TPKS_CHECK tpks_result sidecar_get(TPKS *ks, TPKS **out);
/* Could a password ever be of use? TPKS_UNSUPPORTED. */
TPKS_CHECK tpks_result sidecar_check_useful(const TPKS *ks);
/*
 * For a change of its slots: unlocked with the DEK of `ks`, which is unlocked; made when there is
 * none. One that holds an older DEK, or is damaged, is put aside under a name of its own
 * (tpks_slots_aside()).
 */
TPKS_CHECK tpks_result sidecar_for_change(TPKS *ks, TPKS **out);
/* The DEK by a password or recovery key, not yet proven for the database; and the slot that had
 * it. TPKS_WRONG_SECRET. */
TPKS_CHECK tpks_result sidecar_open_secret(TPKS *side, const TPKS_SECRET *secret,
                                           const slot_row **slot, DEK **out);

#endif
