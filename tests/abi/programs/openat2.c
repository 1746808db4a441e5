/* openat2's rules of resolution, O_PATH. */
#include "abi.h"
#include <linux/openat2.h>
static long o2(int d, const char *p, uint64_t flags, uint64_t mode, uint64_t res) { struct open_how h = { flags, mode, res }; return syscall(SYS_openat2, d, p, &h, sizeof h); }
int main(void) {
    enter("openat2");
    mkdir("d", 0755); symlink("..", "d/up"); symlink("/etc", "d/abs"); symlink("in", "d/link"); close(open("d/in", O_CREAT | O_RDWR, 0600));
    int d = OK(open("d", O_RDONLY | O_DIRECTORY));
    T(o2(d, "in", O_RDONLY, 0, RESOLVE_BENEATH) >= 0); T(o2(d, "up", O_RDONLY, 0, RESOLVE_BENEATH)); T(o2(d, "../x", O_RDONLY, 0, RESOLVE_BENEATH)); T(o2(d, "/etc", O_RDONLY, 0, RESOLVE_BENEATH));
    T(o2(d, "abs", O_RDONLY, 0, RESOLVE_BENEATH)); T(o2(d, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS)); T(o2(d, "link", O_RDONLY, 0, 0) >= 0);
    T(o2(d, "/in", O_RDONLY, 0, RESOLVE_IN_ROOT) >= 0); T(o2(d, "../../in", O_RDONLY, 0, RESOLVE_IN_ROOT) >= 0); T(o2(d, "abs", O_RDONLY, 0, RESOLVE_IN_ROOT));
    T(o2(AT_FDCWD, "/proc/self/cwd", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS)); T(o2(AT_FDCWD, "/proc/version", O_RDONLY, 0, RESOLVE_NO_XDEV));
    T(o2(d, "in", O_RDONLY, 0600, 0)); T(o2(d, "in", 1ULL << 40, 0, 0)); T(o2(d, "in", O_RDONLY, 0, 1 << 20)); T(o2(d, "new", O_CREAT | O_RDWR, 0640, 0) >= 0); T(o2(d, "n2", O_CREAT | O_RDWR, 0100000, 0));
    T(syscall(SYS_openat2, d, "in", (void *)0, 3)); char big[64] = { 0 }; T(syscall(SYS_openat2, d, "in", big, sizeof big) >= 0); big[60] = 1; T(syscall(SYS_openat2, d, "in", big, sizeof big));
    int p = OK(open("d/in", O_PATH)); char b[8]; T(read(p, b, 1)); T(fcntl(p, F_GETFL) & O_PATH ? 1 : 0); struct stat st; T(fstat(p, &st)); T(fchmod(p, 0600)); T(ioctl(p, FIONREAD, b)); T(fcntl(p, F_SETFL, 0)); T(dup(p) >= 0);
    int l = OK(open("d/link", O_PATH | O_NOFOLLOW)); T(fstat(l, &st)); SHOW(S_ISLNK(st.st_mode)); memset(b, 0, 8); T(readlinkat(l, "", b, 8)); TEXT("%s", b);
    T(openat(p, "x", O_RDONLY)); T(openat(99, "x", O_RDONLY)); T(openat(99, "/tmp", O_RDONLY) >= 0);
    unlink("d/in"); unlink("d/up"); unlink("d/abs"); unlink("d/link"); unlink("d/new"); rmdir("d");
    return leave();
}
