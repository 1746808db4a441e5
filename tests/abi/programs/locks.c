/* POSIX and open-file-description record locks, flock. */
#include "abi.h"
#include <sys/file.h>
static struct flock lock(int type, long start, long len) {
    struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };
    return l;
}
static int set(int fd, int cmd, int type, long start, long len) { struct flock l = lock(type, start, len); return fcntl(fd, cmd, &l); }
static void get(int fd, int cmd, int type, long start, long len) {
    struct flock l = lock(type, start, len);
    int r = fcntl(fd, cmd, &l);
    if (r) printf("get: %s\n", strerrorname_np(errno));
    else if (l.l_type == F_UNLCK) puts("get: free");
    else printf("get: type %d start %ld len %ld pid %d\n", l.l_type, (long)l.l_start, (long)l.l_len, l.l_pid == -1 ? -1 : l.l_pid == getpid());
}
int main(void) {
    enter("locks");
    int a = OK(open("f", O_CREAT | O_RDWR, 0600)), b = OK(open("f", O_RDWR)), r = OK(open("f", O_RDONLY));
    T(set(a, F_SETLK, F_WRLCK, 0, 10));
    T(set(b, F_SETLK, F_WRLCK, 5, 10));
    get(b, F_GETLK, F_WRLCK, 0, 0);
    get(b, F_OFD_GETLK, F_WRLCK, 12, 0);
    T(set(b, F_OFD_SETLK, F_RDLCK, 2, 1));
    T(set(r, F_SETLK, F_WRLCK, 0, 1));
    T(set(a, F_SETLK, F_UNLCK, 0, 0));
    T(set(a, F_OFD_SETLK, F_WRLCK, 10, 10));
    T(set(b, F_OFD_SETLK, F_RDLCK, 15, 1));
    T(set(b, F_OFD_SETLK, F_RDLCK, 20, 5));
    get(b, F_OFD_GETLK, F_RDLCK, 0, 0);
    T(set(a, F_OFD_SETLK, F_UNLCK, 12, 4));
    T(set(b, F_OFD_SETLK, F_WRLCK, 12, 4));
    T(set(a, F_SETLK, F_RDLCK, -5, 2));
    T(set(a, F_SETLK, 77, 0, 1));
    T(close(a));
    T(set(b, F_OFD_SETLK, F_WRLCK, 0, 0));
    T(flock(b, LOCK_EX));
    T(flock(r, LOCK_SH | LOCK_NB));
    T(flock(b, LOCK_SH));
    T(flock(r, LOCK_SH | LOCK_NB));
    T(flock(r, LOCK_EX | LOCK_NB));
    int d = dup(b);
    T(close(b));
    T(flock(r, LOCK_EX | LOCK_NB));
    T(close(d));
    T(flock(r, LOCK_EX | LOCK_NB));
    T(flock(r, LOCK_UN));
    T(flock(r, 99));
    T(close(r));
    T(unlink("f"));
    return leave();
}
