/* poll, ppoll, select, pselect with signals and time left. */
#include "abi.h"
#include <sys/select.h>
static int hits;
static void on_signal(int s) { (void)s; hits++; }
int main(void) {
    enter("poll");
    struct sigaction sa = { .sa_handler = on_signal };
    sigaction(SIGALRM, &sa, NULL);
    int p[2]; pipe(p);
    struct pollfd f[4] = { { p[0], POLLIN, 0 }, { p[1], POLLOUT, 0 }, { -1, POLLIN, 7 }, { 99, POLLIN, 0 } };
    T(poll(f, 4, 0)); printf("%x %x %x %x\n", f[0].revents, f[1].revents, f[2].revents, f[3].revents);
    T(poll(f, 1, 10));
    T(poll(NULL, 0, 5));
    write(p[1], "x", 1);
    T(poll(f, 3, -1)); printf("%x %x %x\n", f[0].revents, f[1].revents, f[2].revents);
    T(poll((void *)1, 1, 0));
    close(p[1]);
    T(poll(f, 1, 0)); printf("%x\n", f[0].revents);
    char c; read(p[0], &c, 1);
    T(poll(f, 1, 0)); printf("%x\n", f[0].revents);
    close(p[0]); pipe(p);
    close(p[0]); f[1].fd = p[1];
    T(poll(f + 1, 1, 0)); printf("%x\n", f[1].revents);
    close(p[1]); pipe(p);
    fd_set r, w;
    FD_ZERO(&r); FD_ZERO(&w); FD_SET(p[0], &r); FD_SET(p[1], &w);
    T(select(p[1] + 1, &r, &w, NULL, NULL)); SHOW(FD_ISSET(p[0], &r) != 0); SHOW(FD_ISSET(p[1], &w) != 0);
    struct timeval tv = { 0, 20000 };
    FD_SET(p[0], &r);
    T(select(p[0] + 1, &r, NULL, NULL, &tv)); SHOW(tv.tv_sec + tv.tv_usec); SHOW(FD_ISSET(p[0], &r) != 0);
    tv.tv_sec = -1;
    T(select(0, NULL, NULL, NULL, &tv));
    T(select(-1, NULL, NULL, NULL, NULL));
    FD_ZERO(&r); FD_SET(60, &r);
    tv.tv_sec = 0;
    T(select(61, &r, NULL, NULL, &tv));
    write(p[1], "x", 1); FD_ZERO(&r); FD_SET(p[0], &r);
    tv.tv_sec = 100;
    T(select(p[0] + 1, &r, NULL, NULL, &tv)); SHOW(tv.tv_sec >= 98);
    struct itimerval it = { { 0, 0 }, { 0, 30000 } };
    f[0].fd = p[0]; f[0].events = POLLPRI;
    setitimer(ITIMER_REAL, &it, NULL);
    T(poll(f, 1, 5000)); SHOW(hits);
    sigset_t block, none; sigemptyset(&none); sigemptyset(&block); sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGALRM);
    struct timespec ts = { 5, 0 };
    T(ppoll(f, 1, &ts, &none)); SHOW(hits);
    sigset_t now; sigprocmask(SIG_BLOCK, NULL, &now); SHOW(sigismember(&now, SIGALRM));
    raise(SIGALRM);
    T(pselect(0, NULL, NULL, NULL, &ts, &none)); SHOW(hits);
    ts.tv_sec = 0; ts.tv_nsec = 1000000000;
    T(ppoll(f, 1, &ts, NULL));
    return leave();
}
