/* Many threads on pipes, event counters, sockets and one epoll set: nothing is lost, nothing comes twice. */
#include "abi.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#define N 8
#define ROUNDS 2000
static int in[2], ev, ep, pairs[N][2]; static long sum; static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *produce(void *arg) { for (int i = 0; i < ROUNDS; i++) { int v[2] = { (int)(long)arg, i }; write(in[1], v, sizeof v); } return NULL; }
static void *consume(void *arg) { (void)arg; int v[2]; long s = 0; while (read(in[0], v, sizeof v) == sizeof v) s += v[1]; pthread_mutex_lock(&lock); sum += s; pthread_mutex_unlock(&lock); return NULL; }
static void *count(void *arg) { (void)arg; uint64_t one = 1; for (int i = 0; i < ROUNDS; i++) write(ev, &one, 8); return NULL; }
static void *send_all(void *arg) { int fd = pairs[(long)arg][0]; char b[64]; memset(b, (int)(long)arg, sizeof b); for (int i = 0; i < 500; i++) write(fd, b, sizeof b); shutdown(fd, SHUT_WR); return NULL; }
static void *serve(void *arg) {
    (void)arg; long s = 0; struct epoll_event e[4];
    for (;;) { int n = epoll_wait(ep, e, 4, 3000); if (n <= 0) break;
        for (int i = 0; i < n; i++) { int k = e[i].data.u32, end = 0; char b[1000]; ssize_t r;
            if (k == N) goto out;
            while ((r = recv(pairs[k][1], b, sizeof b, MSG_DONTWAIT)) > 0) s += r; end = r == 0;
            struct epoll_event again = { EPOLLIN | EPOLLONESHOT, { .u32 = k } };
            if (!end) epoll_ctl(ep, EPOLL_CTL_MOD, pairs[k][1], &again);
            else { static int left = N; if (__sync_sub_and_fetch(&left, 1) == 0) { uint64_t one = 1; write(ev, &one, 8); } } } }
out: pthread_mutex_lock(&lock); sum += s; pthread_mutex_unlock(&lock); return NULL;
}
int main(void) {
    enter("threads_io");
    pthread_t a[N], b[N]; pipe(in);
    for (long i = 0; i < N; i++) { pthread_create(&a[i], NULL, produce, (void *)i); pthread_create(&b[i], NULL, consume, NULL); }
    for (int i = 0; i < N; i++) pthread_join(a[i], NULL);
    close(in[1]); for (int i = 0; i < N; i++) pthread_join(b[i], NULL);
    SHOW(sum); SHOW(sum == (long)N * ROUNDS * (ROUNDS - 1) / 2);
    ev = eventfd(0, 0); for (int i = 0; i < N; i++) pthread_create(&a[i], NULL, count, NULL);
    uint64_t got = 0, v; while (got < N * ROUNDS) { read(ev, &v, 8); got += v; } SHOW(got);
    for (int i = 0; i < N; i++) pthread_join(a[i], NULL);
    ep = epoll_create1(0); sum = 0; struct epoll_event e = { EPOLLIN, { .u32 = N } }; epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e);
    for (int i = 0; i < N; i++) { socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]); struct epoll_event o = { EPOLLIN | EPOLLONESHOT, { .u32 = i } }; epoll_ctl(ep, EPOLL_CTL_ADD, pairs[i][1], &o); }
    for (int i = 0; i < 3; i++) pthread_create(&b[i], NULL, serve, NULL);
    for (long i = 0; i < N; i++) pthread_create(&a[i], NULL, send_all, (void *)i);
    for (int i = 0; i < N; i++) pthread_join(a[i], NULL);
    for (int i = 0; i < 3; i++) pthread_join(b[i], NULL);
    SHOW(sum); SHOW(sum == N * 500 * 64);
    return leave();
}
