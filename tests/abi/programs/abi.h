/* Helpers of the programs that must print the same on Linux and in the unikernel. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Prints a call and its result, or the name of its error. */
#define T(call) ({ errno = 0; long r_ = (long)(call); \
    if (r_ == -1) printf("%s = -1 %s\n", #call, errno ? strerrorname_np(errno) : "0"); \
    else printf("%s = %ld\n", #call, r_); r_; })
/* The same where only success matters: descriptors, addresses. */
#define OK(call) ({ errno = 0; long r_ = (long)(call); \
    if (r_ == -1) printf("%s = -1 %s\n", #call, strerrorname_np(errno)); \
    else printf("%s ok\n", #call); r_; })
#define SHOW(value) printf("%s: %lld\n", #value, (long long)(value))
#define TEXT(format, ...) printf(format "\n", ##__VA_ARGS__)

static char work_dir[64];

/* A fresh directory to work in; removed by `leave`. */
static inline void enter(const char *name) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    umask(022);
    snprintf(work_dir, sizeof work_dir, "/tmp/abi-%s-%d", name, (int)getpid());
    if (mkdir(work_dir, 0755) || chdir(work_dir)) { perror(work_dir); exit(99); }
}

static inline int leave(void) {
    char command[PATH_MAX];
    (void)command;
    if (chdir("/") || rmdir(work_dir)) { printf("left behind: %s\n", strerrorname_np(errno)); return 1; }
    fflush(stdout);
    return 0;
}

static inline void sleep_ms(int ms) {
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    nanosleep(&t, NULL);
}
