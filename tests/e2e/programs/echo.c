/* Reads lines from the console until end of file and says them back. */
#include <stdio.h>

int main(void)
{
    char line[256];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("heard: %s", line);
        fflush(stdout);
        if (line[0] == 'q')
            return 0;
    }
    return 3;
}
