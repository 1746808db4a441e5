/* splice from files over pipes to TCP sockets, and from sockets over pipes to sockets and files: what arrives is compared. Sockets that
   take no more leave the rest in the pipe. */
#include "abi.h"
#include <netinet/in.h>
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
static unsigned char bytes[300001], back[sizeof bytes + 100];
static size_t all(int from, size_t n) {
    size_t got = 0;
    for (ssize_t m; got < n && (m = read(from, back + got, n - got)) > 0;) got += m;
    return got;
}
static void over(const char *file) {
    TEXT("%s", file);
    int f = open(file, O_CREAT | O_RDWR | O_TRUNC, 0600), a[2], b[2], p[2];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = i * 2654435761u >> 13;
    T(write(f, bytes, sizeof bytes));
    pair(a);
    pair(b);
    T(pipe(p));
    /* From an odd offset, a page and a bit. */
    loff_t at = 4090;
    T(splice(f, &at, p[1], NULL, 5000, 0));
    SHOW(at);
    T(splice(p[0], NULL, a[0], NULL, 9000, SPLICE_F_MOVE));
    SHOW(all(a[1], 5000));
    SHOW(memcmp(back, bytes + 4090, 5000));
    /* Part by read, part by splice; bytes behind pages. */
    at = 0;
    T(splice(f, &at, p[1], NULL, 6000, 0));
    T(write(p[1], "written", 7));
    T(read(p[0], back, 10));
    T(splice(p[0], NULL, a[0], NULL, 5000, 0));
    T(splice(p[0], NULL, a[0], NULL, 5000, 0));
    SHOW(all(a[1], 5997));
    SHOW(memcmp(back, bytes + 10, 5990) | memcmp(back + 5990, "written", 7));
    /* tee leaves it there, splice from pipe to pipe moves it. */
    int q[2];
    T(pipe(q));
    at = 100;
    T(splice(f, &at, p[1], NULL, 3000, 0));
    T(tee(p[0], q[1], 3000, 0));
    T(read(q[0], back, sizeof back));
    SHOW(memcmp(back, bytes + 100, 3000));
    T(splice(p[0], NULL, q[1], NULL, 3000, 0));
    T(read(q[0], back, sizeof back));
    SHOW(memcmp(back, bytes + 100, 3000));
    T(splice(p[0], NULL, q[1], NULL, 1, SPLICE_F_NONBLOCK));
    /* The end of the file. */
    at = sizeof bytes - 3;
    T(splice(f, &at, p[1], NULL, 100, 0));
    T(splice(f, &at, p[1], NULL, 100, 0));
    SHOW(at);
    T(read(p[0], back, 100));
    /* From socket to socket. */
    T(send(a[0], bytes, 20000, 0));
    size_t moved = 0;
    while (moved < 20000) {
        ssize_t n = splice(a[1], NULL, p[1], NULL, 65536, 0);
        if (n <= 0) break;
        for (ssize_t m = 0; m < n;) m += splice(p[0], NULL, b[0], NULL, n - m, SPLICE_F_MORE);
        moved += n;
    }
    SHOW(moved);
    T(send(b[0], "end", 3, 0));
    SHOW(all(b[1], 20003));
    SHOW(memcmp(back, bytes, 20000) | memcmp(back + 20000, "end", 3));
    /* A socket that takes no more: what stays behind is in the pipe. */
    fcntl(a[0], F_SETFL, O_NONBLOCK);
    size_t put = 0, sent = 0;
    uint64_t want = 1469598103934665603u;
    for (int round = 0; round < 2000; round++) {
        at = 7 * round;
        ssize_t n = splice(f, &at, p[1], NULL, 30000, SPLICE_F_NONBLOCK);
        if (n > 0) {
            for (ssize_t i = 0; i < n; i++) want = (want ^ bytes[7 * round + i]) * 1099511628211u;
            put += n;
        }
        ssize_t m = splice(p[0], NULL, a[0], NULL, 40000, 0);
        if (m < 0) break;
        sent += m;
    }
    SHOW(errno == EAGAIN);
    int left = 0;
    ioctl(p[0], FIONREAD, &left);
    SHOW(put - sent == (size_t)left);
    uint64_t have = 1469598103934665603u;
    size_t got = 0;
    fcntl(a[0], F_SETFL, 0);
    while (got < put) {
        if (sent < put) {
            fcntl(a[0], F_SETFL, O_NONBLOCK);
            ssize_t m = splice(p[0], NULL, a[0], NULL, put - sent, 0);
            if (m > 0) sent += m;
        }
        ssize_t n = recv(a[1], back, sizeof back, MSG_DONTWAIT);
        for (ssize_t i = 0; i < n; i++) have = (have ^ back[i]) * 1099511628211u;
        if (n > 0) got += n;
        else usleep(1000);
    }
    SHOW(have == want && got == put);
    /* Nobody reads. */
    signal(SIGPIPE, SIG_IGN);
    close(q[0]);
    at = 0;
    T(splice(f, &at, q[1], NULL, 100, 0));
    SHOW(at);
    T(write(p[1], "abc", 3));
    T(splice(p[0], NULL, q[1], NULL, 100, 0));
    T(read(p[0], back, 100));
    close(f);
    close(q[1]);
    for (int i = 0; i < 2; i++) close(a[i]), close(b[i]), close(p[i]);
    unlink(file);
}
int main(void) {
    enter("splice");
    over("file");
    over("/dev/shm/abi-splice");
    return leave();
}
