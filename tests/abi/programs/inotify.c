/* inotify: events of files and directories, moves, removal. */
#include "abi.h"
#include <sys/inotify.h>
static int fd;
static void show(void) {
    char b[4096]; ssize_t n = read(fd, b, sizeof b);
    if (n < 0) { printf("read: %s\n", strerrorname_np(errno)); return; }
    uint32_t last = 0;
    for (char *p = b; p < b + n;) { struct inotify_event *e = (void *)p;
        printf(" wd %d mask %x name %s%s\n", e->wd, e->mask, e->len ? e->name : "-", e->cookie ? (e->cookie == last ? " same cookie" : " cookie") : "");
        last = e->cookie; p += sizeof *e + e->len; }
}
int main(void) {
    enter("inotify");
    T(inotify_init1(5)); fd = OK(inotify_init1(IN_NONBLOCK));
    T(inotify_add_watch(fd, "absent", IN_CREATE)); T(inotify_add_watch(fd, ".", 0)); T(inotify_add_watch(0, ".", IN_CREATE));
    T(inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY | IN_CLOSE_WRITE));
    show();
    int f = open("f", O_CREAT | O_RDWR, 0600); write(f, "x", 1); close(f); show();
    mkdir("d", 0700); rename("f", "d/g"); rename("d/g", "h"); show();
    T(inotify_add_watch(fd, "h", IN_ATTRIB | IN_DELETE_SELF | IN_OPEN | IN_ACCESS | IN_CLOSE));
    chmod("h", 0400); f = open("h", O_RDONLY); char c; read(f, &c, 1); close(f); show();
    T(inotify_add_watch(fd, "h", IN_OPEN | IN_MASK_ADD)); T(inotify_add_watch(fd, "h", IN_OPEN | IN_MASK_CREATE));
    unlink("h"); rmdir("d"); show();
    T(inotify_rm_watch(fd, 2)); T(inotify_rm_watch(fd, 1)); show(); show();
    T(inotify_add_watch(fd, ".", IN_CREATE | IN_ONESHOT | IN_ONLYDIR)); close(open("a", O_CREAT | O_RDWR, 0600)); close(open("b", O_CREAT | O_RDWR, 0600)); show();
    T(inotify_add_watch(fd, "a", IN_CREATE | IN_ONLYDIR));
    char tiny[8]; close(open("z", O_CREAT | O_RDWR, 0600)); T(read(fd, tiny, sizeof tiny));
    unlink("a"); unlink("b"); unlink("z");
    return leave();
}
