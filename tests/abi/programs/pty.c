/* Pseudo-terminals: line editing, echo, signals, raw mode, window size. */
#include "abi.h"
#include <termios.h>
static int m, s;
static void type(const char *t) { write(m, t, strlen(t)); }
static void out(void) { char b[256]; sleep_ms(20); ssize_t n = read(m, b, sizeof b - 1); if (n < 0) { printf("screen: %s\n", strerrorname_np(errno)); return; }
    printf("screen:"); for (int i = 0; i < n; i++) printf(b[i] < 32 || b[i] == 127 ? " \\%03o" : " %c", (unsigned char)b[i]); puts(""); }
static void in(size_t max) { char b[256] = { 0 }; ssize_t n = read(s, b, max); if (n < 0) printf("line: %s\n", strerrorname_np(errno)); else { printf("line %d:", (int)n); for (int i = 0; i < n; i++) printf(b[i] < 32 ? " \\%03o" : " %c", b[i]); puts(""); } }
int main(void) {
    enter("pty");
    m = OK(open("/dev/ptmx", O_RDWR | O_NOCTTY)); T(grantpt(m)); T(unlockpt(m));
    int n = -1; T(ioctl(m, TIOCGPTN, &n)); SHOW(n >= 0);
    s = OK(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY)); T(isatty(s)); T(isatty(m));
    fcntl(m, F_SETFL, O_NONBLOCK); fcntl(s, F_SETFL, O_NONBLOCK);
    struct termios t; T(tcgetattr(s, &t)); printf("%x %x %x\n", t.c_iflag & (ICRNL | IXON), t.c_oflag & (OPOST | ONLCR), t.c_lflag & (ICANON | ECHO | ISIG | ECHOE));
    out(); in(99);
    type("hel"); in(99); type("lo\r"); out(); in(3); in(99); in(99);
    type("ab\177c\n"); out(); in(99);
    type("one two\027x\n"); out(); in(99);
    type("gone\025new\n"); in(99); out();
    type("eof\004\004"); in(99); in(99); out();
    write(s, "a\nb\tc\n", 6); out();
    t.c_lflag &= ~(ICANON | ECHO); t.c_cc[VMIN] = 1; t.c_cc[VTIME] = 0; T(tcsetattr(s, TCSANOW, &t));
    type("raw\r"); in(2); in(99); out();
    t.c_oflag &= ~OPOST; t.c_iflag &= ~ICRNL; T(tcsetattr(s, TCSADRAIN, &t)); write(s, "x\n", 2); out(); type("\r"); in(9);
    t.c_cc[VMIN] = 0; t.c_cc[VTIME] = 1; tcsetattr(s, TCSANOW, &t); fcntl(s, F_SETFL, 0); in(9);
    int k; type("abc"); sleep_ms(20); T(ioctl(s, FIONREAD, &k)); SHOW(k); T(tcflush(s, TCIFLUSH)); T(ioctl(s, FIONREAD, &k)); SHOW(k);
    struct winsize w = { 24, 80, 0, 0 }, v; T(ioctl(m, TIOCSWINSZ, &w)); T(ioctl(s, TIOCGWINSZ, &v)); SHOW(v.ws_row * 1000 + v.ws_col);
    T(ioctl(s, TIOCGPTN, &n)); T(ioctl(s, 0x5499, 0));
    struct pollfd p = { m, POLLIN | POLLOUT, 0 }; T(poll(&p, 1, 0)); printf("%x\n", p.revents);
    close(s); T(poll(&p, 1, 0)); printf("%x\n", p.revents); char c; T(read(m, &c, 1));
    close(m);
    return leave();
}
