/* sendfile to a TCP socket: from ext4 or tmpfs, with and without an offset, holes, odd starts, ends of files, full and closed
   sockets. What arrives is hashed. */
#include "abi.h"
#include <netinet/in.h>
#include <sys/sendfile.h>
static struct { int fd; size_t size; uint64_t hash; } got;
static void *reader(void *argument) {
    static unsigned char bytes[65536];
    (void)argument;
    got.size = 0;
    got.hash = 1469598103934665603u;
    for (ssize_t n; (n = read(got.fd, bytes, sizeof bytes)) > 0;) {
        for (ssize_t i = 0; i < n; i++) got.hash = (got.hash ^ bytes[i]) * 1099511628211u;
        got.size += n;
    }
    return NULL;
}
static void pair(int ends[2]) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (struct sockaddr *)&at, sizeof at);
    listen(listener, 1);
    getsockname(listener, (struct sockaddr *)&at, &len);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(ends[0], (struct sockaddr *)&at, sizeof at);
    ends[1] = accept(listener, NULL, NULL);
    close(listener);
}
static int sigpipes;
static void on_pipe(int s) { (void)s; sigpipes++; }
static void over(const char *file) {
    TEXT("%s", file);
    int f = open(file, O_CREAT | O_RDWR | O_TRUNC, 0600), ends[2];
    static unsigned char bytes[300001];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = i * 2654435761u >> 13;
    T(write(f, bytes, sizeof bytes));
    pair(ends);
    got.fd = ends[1];
    pthread_t t;
    pthread_create(&t, NULL, reader, NULL);
    T(lseek(f, 0, SEEK_SET));
    T(sendfile(ends[0], f, NULL, sizeof bytes));
    T(lseek(f, 0, SEEK_CUR));
    T(sendfile(ends[0], f, NULL, 10));
    off_t at = 4097;
    T(sendfile(ends[0], f, &at, 100000));
    SHOW(at);
    at = 300000;
    T(sendfile(ends[0], f, &at, 4096));
    SHOW(at);
    T(sendfile(ends[0], f, &at, 4096));
    at = 400000;
    T(sendfile(ends[0], f, &at, 1));
    at = -1;
    T(sendfile(ends[0], f, &at, 1));
    at = 0;
    T(sendfile(ends[0], f, &at, 0));
    T(lseek(f, 0, SEEK_CUR));
    /* A hole at the end. */
    T(ftruncate(f, 320000));
    at = 299990;
    T(sendfile(ends[0], f, &at, 30000));
    SHOW(at);
    T(write(ends[0], "end", 3));
    T(shutdown(ends[0], SHUT_WR));
    at = 0;
    T(sendfile(ends[0], f, &at, 5));
    SHOW(at); SHOW(sigpipes);
    pthread_join(t, NULL);
    SHOW(got.size);
    TEXT("hash %016llx", (unsigned long long)got.hash);
    close(ends[0]); close(ends[1]);
    /* Nobody reads: some fits, then nothing; the offset says how much. */
    pair(ends);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    T(lseek(f, 0, SEEK_SET));
    long total = 0, n;
    for (;;) {
        at = total % 320000;
        off_t before = at;
        if ((n = sendfile(ends[0], f, &at, 320000 - at)) <= 0) break;
        if (at != before + n) TEXT("offset %ld, %ld sent", (long)at, n);
        total += n;
    }
    TEXT("%ld %s", n, strerrorname_np(errno));
    if (total < 60000) TEXT("only %ld fit", total);
    T(lseek(f, 0, SEEK_CUR));
    got.fd = ends[1];
    pthread_create(&t, NULL, reader, NULL);
    close(ends[0]);
    pthread_join(t, NULL);
    TEXT("%s", (long)got.size == total ? "all came" : "other bytes came");
    close(ends[1]);
    T(sendfile(1000, f, NULL, 1));
    int readonly = open(file, O_RDONLY), writeonly = open(file, O_WRONLY);
    pair(ends);
    T(sendfile(ends[0], writeonly, NULL, 1));
    T(sendfile(ends[0], readonly, NULL, 1));
    T(sendfile(ends[0], ends[1], NULL, 1));
    /* A socket that is not connected. */
    int alone = socket(AF_INET, SOCK_STREAM, 0);
    T(sendfile(alone, readonly, NULL, 1));
    SHOW(sigpipes);
    close(alone); close(readonly); close(writeonly); close(ends[0]); close(ends[1]); close(f);
    unlink(file);
}
int main(void) {
    enter("sendfile");
    signal(SIGPIPE, on_pipe);
    over("file");
    over("/dev/shm/abi-sendfile");
    return leave();
}
