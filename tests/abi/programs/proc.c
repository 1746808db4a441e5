/* /proc/self as programs parse it. */
#include "abi.h"
#include <sys/resource.h>
static char text[65536];
static const char *slurp(const char *path) { int fd = open(path, O_RDONLY); if (fd < 0) { printf("%s: %s\n", path, strerrorname_np(errno)); return ""; } size_t at = 0; ssize_t n; while ((n = read(fd, text + at, sizeof text - 1 - at)) > 0) at += n; text[at] = 0; close(fd); return text; }
static void has(const char *path, const char *what) { printf("%s has %s: %d\n", path, what, strstr(slurp(path), what) != NULL); }
int main(void) {
    enter("proc");
    char b[PATH_MAX] = { 0 };
    const char *status[] = { "Name:\tproc", "State:\tR (running)", "Threads:\t1\n", "Uid:\t", "VmRSS:", "SigCgt:", "Cpus_allowed_list:\t0" };
    for (size_t i = 0; i < sizeof status / sizeof *status; i++) has("/proc/self/status", status[i]);
    int pid, ppid; char comm[64], state; SHOW(sscanf(slurp("/proc/self/stat"), "%d (%63[^)]) %c %d", &pid, comm, &state, &ppid)); SHOW(pid == getpid()); printf("%.4s %c\n", comm, state);
    int fields = 1; for (char *p = strrchr(text, ')'); *p; p++) fields += *p == ' '; SHOW(fields + 1);
    long pages[7]; SHOW(sscanf(slurp("/proc/self/statm"), "%ld %ld %ld %ld %ld %ld %ld", pages, pages + 1, pages + 2, pages + 3, pages + 4, pages + 5, pages + 6)); SHOW(pages[1] > 0);
    unsigned long lo, hi; char perms[8]; SHOW(sscanf(slurp("/proc/self/maps"), "%lx-%lx %4s", &lo, &hi, perms)); SHOW(lo < hi); has("/proc/self/maps", "[stack]\n"); has("/proc/self/maps", "[vdso]\n");
    T(readlink("/proc/self/cwd", b, sizeof b) > 0); SHOW(strcmp(b, work_dir) == 0);
    memset(b, 0, sizeof b); T(readlink("/proc/self/root", b, sizeof b)); TEXT("%s", b);
    memset(b, 0, sizeof b); T(readlink("/proc/self/exe", b, sizeof b) > 0); SHOW(access(b, R_OK));
    int fd = OK(open("file", O_CREAT | O_RDWR, 0600)), p[2]; pipe(p); write(fd, "12345", 5);
    char path[64]; snprintf(path, sizeof path, "/proc/self/fd/%d", fd); memset(b, 0, sizeof b); T(readlink(path, b, sizeof b) > 0); TEXT("%s", strrchr(b, '/'));
    int again = OK(open(path, O_RDONLY)); memset(b, 0, sizeof b); T(read(again, b, 9)); TEXT("[%s]", b);
    snprintf(path, sizeof path, "/proc/self/fd/%d", p[0]); memset(b, 0, sizeof b); T(readlink(path, b, sizeof b) > 0); printf("%.6s\n", b);
    int w; snprintf(path, sizeof path, "/proc/self/fd/%d", p[1]); w = OK(open(path, O_WRONLY)); T(write(w, "re", 2)); T(read(p[0], b, 9));
    T(open("/proc/self/fd/77", O_RDONLY)); T(readlink("/proc/self/fd/x", b, 9));
    unlink("file"); snprintf(path, sizeof path, "/proc/self/fd/%d", fd); memset(b, 0, sizeof b); readlink(path, b, sizeof b); SHOW(strstr(b, " (deleted)") != NULL);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd); has(path, "pos:\t5\n"); has(path, "flags:\t0100002\n");
    has("/proc/self/limits", "Max open files"); has("/proc/self/limits", "Limit                     Soft Limit           Hard Limit           Units     \n");
    has("/proc/self/mounts", " / "); has("/proc/self/mountinfo", " - "); has("/proc/self/environ", ""); slurp("/proc/self/cmdline"); SHOW(strstr(text, "proc") != NULL);
    T(open("/proc/self/comm", O_RDONLY) >= 0); fd = open("/proc/self/comm", O_WRONLY); T(write(fd, "renamed", 7)); TEXT("%s", slurp("/proc/self/comm"));
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", getpid()); SHOW(sscanf(slurp(path), "%d", &pid)); SHOW(pid == getpid()); T(access("/proc/self/task/1", F_OK));
    T(open("/proc/self/absent", O_RDONLY)); T(mkdir("/proc/self/x", 0777) == -1); T(open("/proc/self/status", O_WRONLY) == -1 || 1);
    has("/proc/net/tcp", "  sl  local_address rem_address"); has("/proc/net/dev", "    lo:"); has("/proc/meminfo", "MemTotal:"); has("/proc/cpuinfo", "processor\t: 0"); has("/proc/uptime", "."); has("/proc/stat", "cpu "); has("/proc/version", "version"); has("/proc/sys/kernel/ostype", "Linux\n");
    int self = open("/proc/self", O_RDONLY | O_DIRECTORY); T(openat(self, "status", O_RDONLY) >= 0);
    return leave();
}
