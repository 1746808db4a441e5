/* A server that is flooded with handshakes that never end: answers each line with one, "counts" with /proc/net/netstat, and ends at
   "end". */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

int main(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(80) };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 128)) { perror("listen"); return 1; }
    puts("ready"); fflush(stdout);
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) { perror("accept"); return 1; }
        struct timeval patience = { 2, 0 };
        setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        char line[64] = "";
        if (read(peer, line, sizeof line - 1) > 0 && !strcmp(line, "counts\n")) {
            int counts = open("/proc/net/netstat", O_RDONLY); char part[4096];
            for (long n; (n = read(counts, part, sizeof part)) > 0;) write(peer, part, n);
            close(counts);
        } else if (*line) write(peer, "served\n", 7);
        close(peer);
        if (!strcmp(line, "end\n")) return 0;
    }
}
