/* mkdir, rmdir, rename, link, symlink, readlink, unlink, getdents, chdir, getcwd. */
#include "abi.h"
#include <dirent.h>
static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }
static void list(const char *where) {
    struct dirent **all;
    int n = scandir(where, &all, NULL, by_name);
    printf("%s:", where);
    for (int i = 0; i < n; i++) { printf(" %s/%d", all[i]->d_name, all[i]->d_type); free(all[i]); }
    if (n >= 0) free(all);
    puts("");
}
int main(void) {
    enter("dirs");
    char b[PATH_MAX];
    struct stat st;
    T(mkdir("d", 0777));
    T(mkdir("d", 0777));
    T(mkdir("x/y", 0777));
    T(mkdir("d/e", 0700));
    T(rmdir("d"));
    T(rmdir("."));
    T(rmdir("d/.."));
    T(unlink("d"));
    T(symlink("d/e", "s"));
    T(symlink("", "t"));
    T(symlink("loop", "loop"));
    T(open("loop", O_RDONLY));
    memset(b, 0, sizeof b);
    T(readlink("s", b, sizeof b));
    TEXT("[%s]", b);
    T(readlink("d", b, sizeof b));
    T(readlink("s", b, 2));
    T(open("s", O_RDONLY | O_NOFOLLOW));
    T(lstat("s", &st));
    SHOW(st.st_mode & S_IFMT);
    SHOW(st.st_size);
    T(stat("s", &st));
    SHOW(st.st_mode & S_IFMT);
    close(open("f", O_CREAT | O_WRONLY, 0644));
    T(link("f", "d/g"));
    T(link("d", "h"));
    T(stat("f", &st));
    SHOW(st.st_nlink);
    T(rename("f", "d"));
    T(rename("d", "f"));
    T(rename("d", "d/e/z"));
    T(rename("f", "d/g"));
    T(access("f", F_OK));
    T(unlink("f"));
    close(open("f2", O_CREAT | O_WRONLY, 0644));
    T(syscall(SYS_renameat2, AT_FDCWD, "f2", AT_FDCWD, "s", 1));
    T(syscall(SYS_renameat2, AT_FDCWD, "f2", AT_FDCWD, "s", 2));
    T(lstat("f2", &st));
    SHOW(S_ISLNK(st.st_mode));
    T(rename("s", "f3"));
    list(".");
    list("d");
    T(chdir("f3"));
    T(chdir("d/e"));
    T(getcwd(b, sizeof b) != NULL);
    TEXT("%s", strrchr(b, '/'));
    T(getcwd(b, 3) != NULL);
    SHOW(errno == ERANGE);
    T(chdir("../.."));
    int fd = OK(open("d", O_RDONLY));
    T(fchdir(fd));
    T(openat(fd, "g", O_RDONLY) >= 0);
    T(mkdirat(fd, "k", 0755));
    T(unlinkat(fd, "k", 0));
    T(unlinkat(fd, "k", AT_REMOVEDIR));
    T(fstatat(fd, "", &st, AT_EMPTY_PATH));
    SHOW(S_ISDIR(st.st_mode));
    T(chdir(".."));
    T(read(fd, b, 1));
    char dents[16];
    T(syscall(SYS_getdents64, fd, dents, sizeof dents));
    T(syscall(SYS_getdents64, 0x7fff, dents, sizeof dents));
    memset(b, 'n', 300);
    b[300] = 0;
    T(mkdir(b, 0777));
    for (int i = 0; i < 300; i++) { snprintf(b, sizeof b, "d/e/n%03d", i); close(open(b, O_CREAT | O_WRONLY, 0600)); }
    DIR *dir = opendir("d/e");
    int n = 0; long at = 0;
    struct dirent *e;
    while ((e = readdir(dir))) { if (++n == 100) at = telldir(dir); }
    SHOW(n);
    seekdir(dir, at);
    n = 0;
    while ((e = readdir(dir))) n++;
    SHOW(n);
    rewinddir(dir);
    n = 0;
    while ((e = readdir(dir))) if (e->d_name[0] == 'n') { n++; snprintf(b, sizeof b, "d/e/%s", e->d_name); unlink(b); }
    SHOW(n);
    closedir(dir);
    T(rmdir("d/e"));
    T(unlink("d/g"));
    T(rmdir("d"));
    T(unlink("f2"));
    T(unlink("f3"));
    T(unlink("loop"));
    return leave();
}
