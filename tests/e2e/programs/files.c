/* Counts its own runs in a file that persists, and makes and removes a few others. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
    if (!ok) {
        printf("%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

int main(void)
{
    int runs = 0;
    FILE *f = fopen("/var/runs", "r");
    if (f) {
        must(fscanf(f, "%d", &runs) == 1, "reading /var/runs");
        fclose(f);
    }
    must(mkdir("/var", 0755) == 0 || errno == EEXIST, "mkdir /var");
    f = fopen("/var/runs", "w");
    must(f != NULL, "writing /var/runs");
    fprintf(f, "%d\n", ++runs);
    must(fclose(f) == 0, "closing /var/runs");
    for (int i = 0; i < 200; i++) {
        char name[64];
        snprintf(name, sizeof name, "/var/file-%d-%d", runs, i);
        int fd = open(name, O_CREAT | O_WRONLY, 0640);
        must(fd >= 0, name);
        char block[5000];
        memset(block, i, sizeof block);
        must(write(fd, block, sizeof block) == sizeof block, "write");
        must(close(fd) == 0, "close");
        if (i % 3 == 0)
            must(unlink(name) == 0, "unlink");
    }
    must(symlink("runs", "/var/link") == 0 || errno == EEXIST, "symlink");
    printf("run %d\n", runs);
    return 0;
}
