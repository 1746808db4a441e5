/* Closing what another thread waits for, and closing twice. */
#include "abi.h"
#include <netinet/in.h>
#include <arpa/inet.h>
static int fd; static void *later(void *how) { sleep_ms(50); if (how) shutdown(fd, SHUT_RDWR); else close(fd); return NULL; }
int main(void) {
    enter("closing");
    signal(SIGPIPE, SIG_IGN); pthread_t t; char b[4]; int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s); fd = s[0];
    pthread_create(&t, NULL, later, (void *)1); T(read(s[0], b, 1)); pthread_join(t, NULL); T(write(s[0], b, 1)); T(close(s[0])); T(close(s[0]));
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }; socklen_t l = sizeof a;
    int ls = socket(AF_INET, SOCK_STREAM, 0); bind(ls, (void *)&a, sizeof a); listen(ls, 4); getsockname(ls, (void *)&a, &l); fd = ls;
    pthread_create(&t, NULL, later, (void *)1); T(accept(ls, NULL, NULL)); pthread_join(t, NULL); close(ls);
    int p[2]; pipe(p); fd = p[1];
    pthread_create(&t, NULL, later, NULL); T(read(p[0], b, 1)); pthread_join(t, NULL);
    struct pollfd f = { p[0], POLLIN, 0 }; T(poll(&f, 1, 0)); printf("%x\n", f.revents);
    pipe(p); fd = p[0]; static char big[200000];
    pthread_create(&t, NULL, later, NULL); T(write(p[1], big, sizeof big)); T(write(p[1], big, 1)); pthread_join(t, NULL);
    int d = dup(p[1]); close(p[1]); T(fcntl(d, F_GETFD)); T(fcntl(p[1], F_GETFD)); T(dup2(d, d)); T(close(d));
    T(close_range(3, ~0U, 0)); T(fcntl(3, F_GETFD)); T(open("/dev/null", O_RDWR));
    return leave();
}
