/*
 * restore_lock.h - one process at a time restores a keystore on this host
 *
 * A file in the lock folder, held by flock(2); the process that holds it writes its name there. The
 * lock spares people a second question; correctness does not depend on it.
 */
#ifndef TRUSTPOINT_RESTORE_LOCK_H
#define TRUSTPOINT_RESTORE_LOCK_H

#include "keystore_internal.h"

/*
 * Waits at most `seconds` for another process. *fd is then -1, where the folder can't be used, or
 * holds the lock until restore_lock_release(). TPKS_RESTORE_PENDING names the process that has it.
 */
TPKS_CHECK tpks_result restore_lock_take(const TPKS *ks, long seconds, int *fd);
void restore_lock_release(int *fd);

#define RESTORE_LOCK __attribute__((cleanup(restore_lock_release))) int

#endif
