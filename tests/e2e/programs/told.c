// Tells, whenever it changes, what the information store can change: the host's name, a limit, a name server, a variable.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int main(void) {
    char last[512] = "";
    for (;;) {
        char name[65] = "?", server[64] = "none", line[256], now[512];
        struct rlimit limit = {0};
        gethostname(name, sizeof name);
        getrlimit(RLIMIT_NOFILE, &limit);
        FILE *file = fopen("/etc/resolv.conf", "r");
        while (file && fgets(line, sizeof line, file))
            if (sscanf(line, "nameserver %63s", server) == 1) break;
        if (file) fclose(file);
        const char *greeting = getenv("GREETING");
        snprintf(now, sizeof now, "host=%s nofile=%llu server=%s greeting=%s", name,
                 (unsigned long long)limit.rlim_cur, server, greeting ? greeting : "none");
        if (strcmp(now, last)) {
            strcpy(last, now);
            puts(now);
            fflush(stdout);
        }
        usleep(50 * 1000);
    }
}
