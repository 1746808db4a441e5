/* The devices every program expects. */
#include "abi.h"
int main(void) {
    enter("dev");
    char b[32]; struct stat st;
    int n = OK(open("/dev/null", O_RDWR)); T(read(n, b, 9)); T(write(n, b, 9)); T(lseek(n, 5, SEEK_SET)); T(ftruncate(n, 0));
    int z = OK(open("/dev/zero", O_RDWR)); memset(b, 1, sizeof b); T(read(z, b, sizeof b)); SHOW(b[0] | b[31]); T(write(z, b, 9));
    char *m = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, z, 0); SHOW(m != MAP_FAILED); m[5000] = 3; SHOW(m[5000] + m[0]);
    int f = OK(open("/dev/full", O_RDWR)); T(write(f, b, 1)); T(read(f, b, 4));
    int u = OK(open("/dev/urandom", O_RDONLY)), r = OK(open("/dev/random", O_RDONLY)); char c[32]; T(read(u, b, 32)); T(read(r, c, 32)); SHOW(memcmp(b, c, 32) != 0);
    for (int i = 0; i < 5; i++) { const char *names[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/tty" }; T(stat(names[i], &st)); printf("%s %o %lx\n", names[i], st.st_mode & S_IFMT, (long)st.st_rdev); }
    T(access("/dev/shm", W_OK)); T(access("/dev/fd", F_OK)); T(access("/dev/stdin", F_OK)); T(access("/dev/ptmx", F_OK));
    struct pollfd p = { n, POLLIN | POLLOUT, 0 }; T(poll(&p, 1, 0)); SHOW(p.revents);
    T(ioctl(n, TCGETS, b)); T(isatty(n)); T(ioctl(z, FIONREAD, b) == -1);
    int s = shm_open("/abi-dev", O_CREAT | O_RDWR, 0600); SHOW(s >= 0); T(ftruncate(s, 4096)); char *a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0), *d = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0); a[7] = 9; SHOW(d[7]); T(shm_unlink("/abi-dev"));
    T(getrandom(b, 16, 0)); T(getrandom(b, 16, 99));
    return leave();
}
