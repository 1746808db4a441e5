/* epoll: level, edge, one-shot, nesting, threads. */
#include "abi.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
static int ep, fds[2];
static int add(int op, int fd, uint32_t ev, int data) { struct epoll_event e = { ev, { .u64 = data } }; return epoll_ctl(ep, op, fd, &e); }
static void wait_show(int ms) {
    struct epoll_event e[8];
    int n = epoll_wait(ep, e, 8, ms);
    printf("wait = %d:", n);
    for (int i = 0; i < n; i++) printf(" %d/%x", (int)e[i].data.u64, e[i].events);
    puts("");
}
static void *late(void *arg) { (void)arg; sleep_ms(30); write(fds[1], "x", 1); return NULL; }
int main(void) {
    enter("epoll");
    struct epoll_event e = { EPOLLIN, { 0 } };
    T(epoll_create(0));
    T(epoll_create1(7));
    ep = OK(epoll_create1(EPOLL_CLOEXEC));
    pipe2(fds, O_NONBLOCK);
    T(add(EPOLL_CTL_ADD, fds[0], EPOLLIN, 1));
    T(add(EPOLL_CTL_ADD, fds[0], EPOLLIN, 1));
    T(add(EPOLL_CTL_ADD, 99, EPOLLIN, 1));
    T(add(EPOLL_CTL_MOD, fds[1], EPOLLIN, 1));
    T(add(EPOLL_CTL_DEL, fds[1], 0, 1));
    T(add(EPOLL_CTL_ADD, ep, EPOLLIN, 1));
    T(add(9, fds[1], 0, 1));
    int f = open("f", O_CREAT | O_RDWR, 0600);
    T(add(EPOLL_CTL_ADD, f, EPOLLIN, 1));
    T(epoll_ctl(f, EPOLL_CTL_ADD, fds[0], &e));
    T(epoll_wait(ep, &e, 0, 0));
    T(epoll_wait(ep, &e, -1, 0));
    T(epoll_wait(f, &e, 1, 0));
    wait_show(0);
    write(fds[1], "ab", 2);
    wait_show(0); wait_show(0);
    char b[8];
    read(fds[0], b, 1);
    wait_show(0);
    T(add(EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLET, 2));
    wait_show(0); wait_show(0);
    write(fds[1], "c", 1);
    wait_show(0); wait_show(0);
    T(add(EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLONESHOT, 3));
    wait_show(0); wait_show(0);
    T(add(EPOLL_CTL_MOD, fds[0], EPOLLIN, 4));
    wait_show(0);
    T(add(EPOLL_CTL_ADD, fds[1], EPOLLOUT, 5));
    wait_show(0);
    T(add(EPOLL_CTL_DEL, fds[1], 0, 0));
    while (read(fds[0], b, 8) > 0) { }
    pthread_t t;
    pthread_create(&t, NULL, late, NULL);
    wait_show(5000);
    pthread_join(t, NULL);
    int outer = epoll_create1(0);
    struct epoll_event in = { EPOLLIN, { .u64 = 9 } };
    T(epoll_ctl(outer, EPOLL_CTL_ADD, ep, &in));
    T(epoll_ctl(ep, EPOLL_CTL_ADD, outer, &in));
    T(epoll_wait(outer, &e, 1, 0)); SHOW(e.data.u64);
    read(fds[0], b, 8);
    T(epoll_wait(outer, &e, 1, 0));
    T(add(EPOLL_CTL_MOD, fds[0], EPOLLIN | EPOLLEXCLUSIVE, 4));
    close(fds[1]);
    wait_show(0);
    int d = dup(fds[0]);
    close(fds[0]);
    wait_show(0);
    close(d);
    wait_show(0);
    int ev = eventfd(1, 0);
    T(add(EPOLL_CTL_ADD, ev, EPOLLIN | EPOLLOUT | EPOLLRDNORM, 6));
    wait_show(0);
    unlink("f");
    return leave();
}
