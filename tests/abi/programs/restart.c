/* What a signal does to a call that waits: restarted, interrupted, or a part is the answer. */
#include "abi.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
static int p[2]; static volatile int hits; static pthread_t main_thread;
static void on_signal(int s) { (void)s; hits++; }
static void handle(int flags) { struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags }; sigaction(SIGUSR1, &sa, NULL); }
static void *poke(void *arg) { sleep_ms(40); pthread_kill(main_thread, SIGUSR1); sleep_ms(40); if (arg) write(p[1], arg, strlen(arg)); return NULL; }
#define WITH(text, call) ({ pthread_t t_; pthread_create(&t_, NULL, poke, text); T(call); pthread_join(t_, NULL); SHOW(hits); hits = 0; })
int main(void) {
    enter("restart");
    char b[16]; main_thread = pthread_self(); pipe(p);
    handle(0); WITH("one", read(p[0], b, 9)); T(read(p[0], b, 9));
    handle(SA_RESTART); WITH("two", read(p[0], b, 9));
    int s[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    handle(0); WITH(NULL, recv(s[0], b, 1, 0));
    struct timeval tv = { 5, 0 }; setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    handle(SA_RESTART); WITH(NULL, recv(s[0], b, 1, 0));
    struct pollfd f = { s[0], POLLIN, 0 }; WITH(NULL, poll(&f, 1, 5000));
    int e = epoll_create1(0); struct epoll_event ev; WITH(NULL, epoll_wait(e, &ev, 1, 5000));
    WITH(NULL, select(0, NULL, NULL, NULL, &tv));
    int c = eventfd(0, 0); handle(0); WITH(NULL, read(c, b, 8));
    struct timespec ts = { 5, 0 }, left; WITH(NULL, nanosleep(&ts, &left)); SHOW(left.tv_sec >= 4);
    static char big[300000]; fcntl(p[1], F_SETPIPE_SZ, 65536); WITH(NULL, write(p[1], big, sizeof big));
    /* A signal without a handler that does nothing: the call goes on. */
    signal(SIGUSR1, SIG_DFL); signal(SIGUSR1, SIG_IGN);
    pthread_t t; int q[2]; pipe(q); int old1 = p[1]; p[1] = q[1]; pthread_create(&t, NULL, poke, "ign"); T(read(q[0], b, 9)); pthread_join(t, NULL); p[1] = old1;
    return leave();
}
