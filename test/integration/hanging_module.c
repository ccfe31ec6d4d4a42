/*
 * hanging_module.c - a PKCS#11 module that never answers, to see what a hanging HSM does
 */
#include <unistd.h>

__attribute__((visibility("default"))) unsigned long C_GetFunctionList(void **list);

unsigned long C_GetFunctionList(void **list)
{
    (void)list;
    for (;;)
        pause();
}
