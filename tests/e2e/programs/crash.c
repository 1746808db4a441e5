/* Writes through a null pointer from a function with a name worth seeing in a backtrace. */
#include <stdlib.h>

static volatile int *nowhere;

__attribute__((noinline)) void the_guilty_function(void)
{
    *nowhere = 1;
}

int main(int argc, char **argv)
{
    (void)argv;
    the_guilty_function();
    return argc;
}
