/* memfd_create and seals, fallocate. */
#include "abi.h"
int main(void) {
    enter("memfd");
    struct stat st; char b[8] = { 0 };
    T(memfd_create("x", 0x80)); 
    int fd = OK(memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING)); T(fcntl(fd, F_GETFD)); T(fcntl(fd, F_GET_SEALS));
    T(ftruncate(fd, 8192)); T(fstat(fd, &st)); SHOW(st.st_size); printf("%o\n", st.st_mode); SHOW(st.st_nlink);
    T(write(fd, "abc", 3)); T(pread(fd, b, 3, 0)); TEXT("[%s]", b);
    char *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); SHOW(m != MAP_FAILED); m[0] = 'X'; T(pread(fd, b, 3, 0)); TEXT("[%s]", b);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)); munmap(m, 4096);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)); T(ftruncate(fd, 100)); T(ftruncate(fd, 9000)); T(pwrite(fd, "x", 1, 8192));
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)); T(write(fd, "x", 1)); SHOW(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    T(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL)); T(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW)); T(fcntl(fd, F_GET_SEALS));
    int g = OK(memfd_create("plain", 0)); T(fcntl(g, F_ADD_SEALS, F_SEAL_GROW)); T(fcntl(g, F_GET_SEALS)); T(fcntl(0, F_GET_SEALS));
    int f = OK(open("f", O_CREAT | O_RDWR, 0600));
    T(fallocate(f, 0, 0, 10000)); T(fstat(f, &st)); SHOW(st.st_size);
    T(fallocate(f, FALLOC_FL_KEEP_SIZE, 0, 50000)); T(fstat(f, &st)); SHOW(st.st_size);
    T(pwrite(f, "data", 4, 0)); T(fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096)); T(pread(f, b, 4, 0)); SHOW(b[0]);
    T(fallocate(f, 0, -1, 5)); T(fallocate(f, 0, 0, 0)); T(fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, 5)); T(fallocate(-1, 0, 0, 5));
    T(posix_fadvise(f, 0, 0, POSIX_FADV_WILLNEED)); T(posix_fadvise(f, 0, 0, 99)); T(fsync(f)); T(fdatasync(f)); T(syncfs(f)); T(fsync(99));
    int p[2]; pipe(p); T(fsync(p[0])); T(fallocate(p[1], 0, 0, 5)); T(posix_fadvise(p[0], 0, 0, 0));
    unlink("f");
    return leave();
}
