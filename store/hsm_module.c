/*
 * hsm_module.c - PKCS#11 modules, managed by p11-kit: load, initialise, find a token
 *
 * A module is loaded once per process and never unloaded. It is finalised at exit, and where only a
 * new initialisation can show whether a token is there, or make a module work that has died.
 */
#include "hsm_internal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hsm_module *find_module(struct hsm_process *process, const struct token_uri *uri)
{
    struct hsm_module *module = process->modules;
    while (module != NULL &&
           (module->by_name != uri->module_by_name || strcmp(module->name, uri->module) != 0))
        module = module->next;
    return module;
}

static struct hsm_module *add_module(struct hsm_process *process, const struct token_uri *uri)
{
    struct hsm_module *module = calloc(1, sizeof(*module));
    if (module == NULL)
        return NULL;
    module->name = strdup(uri->module);
    if (module->name == NULL) {
        free(module);
        return NULL;
    }
    module->by_name = uri->module_by_name;
    pthread_mutex_init(&module->mutex, NULL);
    module->next = process->modules;
    process->modules = module;
    return module;
}

static struct hsm_module *find_or_add(struct hsm_process *process, const struct token_uri *uri)
{
    HOLD(&process->mutex);
    struct hsm_module *module = find_module(process, uri);
    return module != NULL ? module : add_module(process, uri);
}

static void load_by_name(struct hsm_module *module)
{
    if (module->all == NULL)
        module->all = p11_kit_modules_load(NULL, 0);
    if (module->all != NULL)
        module->functions = p11_kit_module_for_name(module->all, module->name);
}

/* By a name any file may come, and all configured modules are loaded; a link may lead anywhere. */
bool module_is_local(const struct token_uri *uri)
{
    static const char softhsm[] = "/libsofthsm2";
    char real[PATH_MAX];

    if (uri->module_by_name || realpath(uri->module, real) == NULL)
        return false;
    return strncmp(strrchr(real, '/'), softhsm, sizeof(softhsm) - 1) == 0;
}

/* Different names of one file must lead to one lock. */
static tpks_result name_lock(struct hsm_module *module)
{
    char real[PATH_MAX], hash[FILE_HASH_SIZE];
    const char *file = realpath(module->file, real) != NULL ? real : module->file;
    TRY(hsm_file_hash(file, hash));
    snprintf(module->lock_name, sizeof(module->lock_name), "hsm-%s.lock", hash);
    return TPKS_OK;
}

static tpks_result load(struct hsm_module *module)
{
    if (module->by_name)
        load_by_name(module);
    else
        module->functions = p11_kit_module_load(module->name, 0);
    if (module->functions == NULL) {
        const char *why = module->by_name ? "p11-kit is not configured for it" : p11_kit_message();
        return fail(TPKS_HSM_UNAVAILABLE,
                    "PKCS#11 module %s: can't be loaded: %s: correct module-path or module-name "
                    "in the directive `token`, or install the module",
                    module->name, why != NULL ? why : "no such module");
    }
    if (module->file == NULL)
        module->file = p11_kit_module_get_filename(module->functions);
    if (module->file == NULL)
        module->file = strdup(module->name);
    return module->file != NULL ? name_lock(module) : fail_memory();
}

tpks_result module_get(struct hsm_process *process, const struct token_uri *uri,
                       struct hsm_module **out)
{
    struct hsm_module *module = find_or_add(process, uri);
    if (module == NULL)
        return fail_memory();
    HOLD(&module->mutex);
    if (module->functions == NULL)
        TRY(load(module));
    *out = module;
    return TPKS_OK;
}

CK_RV module_initialise(struct hsm_module *module)
{
    if (module->initialised)
        return CKR_OK;
    CK_RV rv = p11_kit_module_initialize(module->functions);
    if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return rv;
    module->initialised = true;
    if (!module->watched)
        hsm_process_watch_exit();
    module->watched = true;
    return CKR_OK;
}

void module_reset(struct hsm_module *module)
{
    if (!module->initialised || atomic_load(&module->sessions) != 0)
        return;
    p11_kit_module_finalize(module->functions);
    module->initialised = false;
}

bool module_is_dead(const struct hsm_module *module)
{
    CK_INFO info;
    CK_ULONG count = 0;
    CK_RV rv = module->functions->C_GetInfo(&info);
    if (rv == CKR_OK) /* some tell that much without the device */
        rv = module->functions->C_GetSlotList(CK_FALSE, NULL, &count);
    return rv == CKR_CRYPTOKI_NOT_INITIALIZED || rv == CKR_DEVICE_ERROR;
}

static CK_RV list_slots(CK_FUNCTION_LIST *functions, CK_SLOT_ID **out, CK_ULONG *count)
{
    CK_RV rv = functions->C_GetSlotList(CK_TRUE, NULL, count);
    if (rv != CKR_OK)
        return rv;
    *count += 8; /* tokens may appear between the two calls */
    *out = calloc(*count, sizeof(**out));
    if (*out == NULL)
        return CKR_HOST_MEMORY;
    rv = functions->C_GetSlotList(CK_TRUE, *out, count);
    if (rv != CKR_OK) {
        free(*out);
        *out = NULL;
    }
    return rv;
}

/* A token that does not answer is no other token: the code says why nobody knows. */
static CK_RV match_slot(CK_FUNCTION_LIST *functions, const struct token_uri *uri, CK_SLOT_ID slot,
                        CK_TOKEN_INFO *token, bool *matches)
{
    CK_SLOT_INFO info;
    CK_SLOT_ID wanted = p11_kit_uri_get_slot_id(uri->parsed);
    *matches = false;
    if (wanted != (CK_SLOT_ID)-1 && wanted != slot)
        return CKR_OK;
    CK_RV rv = functions->C_GetTokenInfo(slot, token);
    if (rv == CKR_TOKEN_NOT_PRESENT || rv == CKR_TOKEN_NOT_RECOGNIZED)
        return CKR_OK;
    if (rv != CKR_OK || (token->flags & CKF_TOKEN_INITIALIZED) == 0 ||
        p11_kit_uri_match_token_info(uri->parsed, token) != 1)
        return rv;
    rv = functions->C_GetSlotInfo(slot, &info);
    *matches = rv == CKR_OK && p11_kit_uri_match_slot_info(uri->parsed, &info) == 1;
    return rv;
}

static bool module_matches(CK_FUNCTION_LIST *functions, const struct token_uri *uri)
{
    CK_INFO info;
    return functions->C_GetInfo(&info) != CKR_OK ||
           p11_kit_uri_match_module_info(uri->parsed, &info) == 1;
}

CK_RV module_find_token(struct hsm_module *module, const struct token_uri *uri, unsigned *matches,
                        CK_SLOT_ID *slot, CK_TOKEN_INFO *info)
{
    CK_SLOT_ID *slots = NULL;
    CK_ULONG count = 0;
    *matches = 0;
    if (!module_matches(module->functions, uri))
        return CKR_OK;
    CK_RV rv = list_slots(module->functions, &slots, &count);
    CK_RV silent = CKR_OK;
    for (CK_ULONG i = 0; rv == CKR_OK && i < count; i++) {
        CK_TOKEN_INFO token;
        bool match;
        CK_RV answer = match_slot(module->functions, uri, slots[i], &token, &match);
        if (answer != CKR_OK)
            silent = answer;
        if (!match)
            continue;
        (*matches)++;
        *slot = slots[i];
        *info = token;
    }
    free(slots);
    return rv == CKR_OK && *matches == 0 ? silent : rv;
}
