/* Prints its arguments and environment as given, and ends with the code in $CODE. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        printf("argument %d: %s\n", i, argv[i]);
    for (char **e = environ; *e; e++)
        printf("environment: %s\n", *e);
    printf("terminal: %d\n", isatty(1));
    const char *code = getenv("CODE");
    return code ? atoi(code) : 0;
}
