/* eventfd, timerfd, signalfd. */
#include "abi.h"
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
int main(void) {
    enter("events");
    uint64_t v;
    int e = OK(eventfd(3, EFD_NONBLOCK));
    T(read(e, &v, 4));
    T(read(e, &v, 8)); SHOW(v);
    T(read(e, &v, 8));
    v = 5; T(write(e, &v, 8)); T(write(e, &v, 8));
    T(read(e, &v, 8)); SHOW(v);
    v = UINT64_MAX; T(write(e, &v, 8));
    v = UINT64_MAX - 1; T(write(e, &v, 8));
    v = 1; T(write(e, &v, 8));
    struct pollfd pf = { e, POLLIN | POLLOUT, 0 };
    T(poll(&pf, 1, 0)); SHOW(pf.revents);
    int s = OK(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
    T(read(s, &v, 8)); SHOW(v);
    T(read(s, &v, 8)); T(read(s, &v, 8));
    T(eventfd(0, 0x7)); 
    int t = OK(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    T(timerfd_create(99, 0));
    struct itimerspec it = { { 0, 10000000 }, { 0, 20000000 } }, old;
    T(read(t, &v, 8));
    T(timerfd_settime(t, 0, &it, NULL));
    T(timerfd_gettime(t, &old)); SHOW(old.it_interval.tv_nsec); SHOW(old.it_value.tv_nsec <= 20000000 && old.it_value.tv_nsec > 0);
    struct pollfd tf = { t, POLLIN, 0 };
    T(poll(&tf, 1, 5000)); SHOW(tf.revents);
    sleep_ms(100);
    T(read(t, &v, 8)); SHOW(v >= 5);
    it.it_interval.tv_nsec = it.it_value.tv_nsec = 0;
    T(timerfd_settime(t, 0, &it, &old)); SHOW(old.it_interval.tv_nsec);
    it.it_value.tv_nsec = 1000000000;
    T(timerfd_settime(t, 0, &it, NULL));
    struct timespec now; clock_gettime(CLOCK_MONOTONIC, &now);
    it.it_value = now;
    T(timerfd_settime(t, TFD_TIMER_ABSTIME, &it, NULL));
    fcntl(t, F_SETFL, 0);
    T(read(t, &v, 8)); SHOW(v);
    T(timerfd_settime(e, 0, &it, NULL));
    sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR1); sigaddset(&m, SIGUSR2);
    sigprocmask(SIG_BLOCK, &m, NULL);
    int sf = OK(signalfd(-1, &m, SFD_NONBLOCK));
    struct signalfd_siginfo si[2];
    T(read(sf, si, sizeof si));
    raise(SIGUSR2); kill(getpid(), SIGUSR1);
    struct pollfd sp = { sf, POLLIN, 0 };
    T(poll(&sp, 1, 0)); SHOW(sp.revents);
    T(read(sf, si, 10));
    T(read(sf, si, sizeof si));
    SHOW(si[0].ssi_signo + si[1].ssi_signo);
    SHOW(si[0].ssi_pid == getpid());
    union sigval sv = { .sival_int = 77 };
    sigqueue(getpid(), SIGUSR1, sv);
    T(read(sf, si, sizeof si)); SHOW(si[0].ssi_int); SHOW(si[0].ssi_code);
    return leave();
}
