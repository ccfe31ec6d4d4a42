/*
 * preload_memory.c - a machine with 256 MiB of memory, as a program asks for it (LD_PRELOAD)
 */
#include <dlfcn.h>
#include <unistd.h>

long sysconf(int name)
{
    long (*real)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");

    return name == _SC_PHYS_PAGES ? (256L << 20) / real(_SC_PAGESIZE) : real(name);
}
