/*
 * new_password.c - taking a new password, handing out a recovery key
 */
#include "new_password.h"

#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>

#include "output.h"
#include "qr.h"
#include "secrets.h"

int kdf_cost_of(unsigned long memory_mib, unsigned long passes, tpks_kdf_cost *cost)
{
    memset(cost, 0, sizeof(*cost));
    if ((memory_mib == 0) != (passes == 0))
        return complain(EX_USAGE, "--kdf-memory and --kdf-passes belong together");
    if (memory_mib > 1024 || passes > 32)
        return complain(EX_USAGE, "--kdf-memory can be at most 1024 MiB and --kdf-passes 32");
    if (passes != 0)
        *cost =
            (tpks_kdf_cost){.t = (uint32_t)passes, .m_kib = (uint32_t)memory_mib * 1024, .p = 1};
    return EX_OK;
}

int new_password_get(const new_password *options, TPKS_SECRET **out, tpks_kdf_cost *cost)
{
    DO(kdf_cost_of(options->kdf_memory, options->kdf_passes, cost));
    if (options->file == NULL && options->fd == NO_FD)
        return secrets_prompt_new("New backup password: ", false, out);
    DO(secrets_read(options->file, options->fd, out));
    return complain_result(tpks_password_check(*out));
}

/* A reader that is gone must be an error, not the end of us: the key has to be taken back then. */
static void ignore_sigpipe(struct sigaction *before)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, before);
}

static int print(const TPKS_SECRET *key, bool qr)
{
    fwrite(tpks_secret_data_const(key), 1, tpks_secret_size(key), stdout);
    putchar('\n');
    if (qr)
        DO(qr_print(key));
    return output_finish();
}

int recovery_key_print(const TPKS_SECRET *key, bool qr)
{
    struct sigaction before;
    int code;

    ignore_sigpipe(&before);
    code = print(key, qr);
    if (code != EX_OK) {
        __fpurge(stdout);
        return code;
    }
    sigaction(SIGPIPE, &before, NULL);
    say("the %s above is the recovery key: it is shown only this once and opens the keystore "
        "without the HSM; keep it offline",
        qr ? "line, and the QR code," : "line");
    return EX_OK;
}
