/*
 * failing_module.c - a PKCS#11 module that is SoftHSM, but fails where the environment says:
 * FAIL=generate kills the program where it makes a key pair, FAIL=destroy keeps every object
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <p11-kit/pkcs11.h>

static CK_FUNCTION_LIST functions;

static CK_RV generate(CK_SESSION_HANDLE session, CK_MECHANISM_PTR mechanism,
                      CK_ATTRIBUTE_PTR public, CK_ULONG public_count, CK_ATTRIBUTE_PTR private,
                      CK_ULONG private_count, CK_OBJECT_HANDLE_PTR public_key,
                      CK_OBJECT_HANDLE_PTR private_key)
{
    (void)session, (void)mechanism, (void)public, (void)public_count, (void)private;
    (void)private_count, (void)public_key, (void)private_key;
    raise(SIGKILL);
    return CKR_DEVICE_ERROR;
}

static CK_RV destroy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    (void)session, (void)object;
    return CKR_DEVICE_ERROR;
}

__attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list)
{
    const char *fail = getenv("FAIL");
    void *softhsm = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = NULL;
    CK_FUNCTION_LIST_PTR real = NULL;

    if (softhsm != NULL)
        *(void **)&get = dlsym(softhsm, "C_GetFunctionList");
    if (get == NULL || get(&real) != CKR_OK)
        return CKR_GENERAL_ERROR;
    functions = *real;
    if (fail != NULL && strcmp(fail, "generate") == 0)
        functions.C_GenerateKeyPair = generate;
    if (fail != NULL && strcmp(fail, "destroy") == 0)
        functions.C_DestroyObject = destroy;
    *list = &functions;
    return CKR_OK;
}
