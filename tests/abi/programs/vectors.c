/* preadv, pwritev and their second versions, iovec limits, statfs, sync calls. */
#include "abi.h"
#include <sys/statfs.h>
#include <sys/statvfs.h>
int main(void) {
    enter("vectors");
    int f = OK(open("f", O_CREAT | O_RDWR, 0600)); char a[8] = { 0 }, b[8] = { 0 };
    struct iovec w[2] = { { "abc", 3 }, { "defg", 4 } }, r[2] = { { a, 2 }, { b, 7 } };
    T(pwritev(f, w, 2, 5)); T(preadv(f, r, 2, 5)); TEXT("[%s][%s]", a, b); T(lseek(f, 0, SEEK_CUR));
    T(pwritev2(f, w, 2, -1, RWF_APPEND)); T(lseek(f, 0, SEEK_CUR)); T(lseek(f, 0, SEEK_END)); T(pwritev2(f, w, 1, 0, RWF_DSYNC)); T(preadv2(f, r, 2, 0, 0x1000)); T(preadv2(f, r, 1, 0, 0)); TEXT("[%.2s]", a);
    T(preadv(f, r, 2, -1)); T(preadv(f, r, 1025, 0)); r[0].iov_len = -1; T(readv(f, r, 1)); r[0].iov_len = 2; r[0].iov_base = (void *)8; T(preadv(f, r, 1, 0));
    r[0].iov_base = a; r[1].iov_base = (void *)8; T(preadv(f, r, 2, 0)); T(readv(f, NULL, 0)); T(readv(f, NULL, 1));
    struct iovec many[1024]; for (int i = 0; i < 1024; i++) { many[i].iov_base = "x"; many[i].iov_len = 1; } T(pwritev(f, many, 1024, 100)); struct stat st; fstat(f, &st); SHOW(st.st_size);
    int p[2]; pipe(p); T(preadv(p[0], r, 1, 0)); T(writev(p[1], w, 2)); r[1].iov_base = b; T(readv(p[0], r, 2)); TEXT("[%.2s][%.5s]", a, b);
    struct statfs s; T(statfs(".", &s)); SHOW(s.f_bsize > 0); SHOW(s.f_namelen); SHOW(s.f_blocks >= s.f_bfree); T(fstatfs(f, &s)); T(statfs("absent", &s)); T(fstatfs(99, &s)); T(statfs("/proc", &s)); printf("%lx\n", (long)s.f_type); T(fstatfs(p[0], &s)); printf("%lx\n", (long)s.f_type);
    struct statvfs v; T(statvfs("/", &v)); SHOW(v.f_namemax);
    T(sync_file_range(f, 0, 10, SYNC_FILE_RANGE_WRITE)); T(sync_file_range(f, -1, 10, 0)); T(readahead(f, 0, 100)); T(readahead(p[0], 0, 1)); sync();
    T(read(f, a, (size_t)-1)); T(write(f, "", 0)); T(read(f, a, 0)); T(write(f, (void *)8, 4));
    unlink("f");
    return leave();
}
