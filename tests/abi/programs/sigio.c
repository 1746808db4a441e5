/* Signal-driven I/O. */
#include "abi.h"
static volatile int hits, last;
static void on_io(int s) { hits++; last = s; }
int main(void) {
    enter("sigio");
    signal(SIGIO, on_io); signal(SIGUSR1, on_io);
    int s[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    T(fcntl(s[0], F_GETOWN)); T(fcntl(s[0], F_SETOWN, getpid())); SHOW(fcntl(s[0], F_GETOWN) == getpid()); T(fcntl(s[0], F_SETOWN, 123456)); T(fcntl(s[0], F_SETFL, O_ASYNC | O_NONBLOCK)); T(fcntl(s[0], F_GETFL) & O_ASYNC);
    write(s[1], "x", 1); for (int i = 0; i < 100 && !hits; i++) sleep_ms(10); SHOW(hits > 0); SHOW(last == SIGIO);
    T(fcntl(s[0], F_SETSIG, SIGUSR1)); T(fcntl(s[0], F_GETSIG)); T(fcntl(s[0], F_SETSIG, 999)); hits = 0; char c; read(s[0], &c, 1); hits = 0;
    write(s[1], "y", 1); for (int i = 0; i < 100 && !hits; i++) sleep_ms(10); SHOW(hits > 0); SHOW(last == SIGUSR1);
    T(fcntl(s[0], F_SETFL, O_NONBLOCK)); sleep_ms(20); hits = 0; write(s[1], "z", 1); sleep_ms(50); SHOW(hits);
    return leave();
}
