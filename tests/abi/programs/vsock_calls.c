/* AF_VSOCK without anybody at the other end: what the calls say. */
#include "abi.h"
#include <linux/vm_sockets.h>

#ifndef SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW
#define SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW 8
#endif

static void each(int kind) {
    printf("kind %d\n", kind);
    int s = OK(socket(AF_VSOCK, kind, 0));
    struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY }, b;
    socklen_t len = sizeof b;
    char byte;
    T(getsockname(s, (void *)&b, &len)); SHOW(len); SHOW(b.svm_family); SHOW(b.svm_cid); SHOW(b.svm_port);
    T(getpeername(s, (void *)&b, &len));
    T(send(s, "x", 1, MSG_NOSIGNAL)); T(recv(s, &byte, 1, 0)); T(shutdown(s, SHUT_RDWR));
    T(listen(s, 1)); T(accept(s, NULL, NULL));
    T(bind(s, (void *)&a, 4)); T(bind(s, (void *)&(struct sockaddr){ .sa_family = AF_INET }, sizeof a));
    a.svm_cid = 77; T(bind(s, (void *)&a, sizeof a));
    a.svm_cid = VMADDR_CID_ANY; a.svm_port = 40001 + kind; T(bind(s, (void *)&a, sizeof a)); T(bind(s, (void *)&a, sizeof a));
    T(getsockname(s, (void *)&b, &len)); SHOW(b.svm_cid); SHOW(b.svm_port);
    int t = OK(socket(AF_VSOCK, kind, 0));
    T(bind(t, (void *)&a, sizeof a));
    T(listen(s, 1)); T(fcntl(s, F_SETFL, O_NONBLOCK)); T(accept(s, NULL, NULL));
    struct pollfd p = { s, POLLIN | POLLOUT, 0 }; T(poll(&p, 1, 0)); printf("%x\n", p.revents);
    T(connect(s, (void *)&a, sizeof a)); T(connect(t, (void *)&a, 4));
    unsigned long size = 0;
    len = sizeof size;
    for (int name = 0; name < 10; name++) {
        unsigned long pair[2] = { 0 };
        len = sizeof pair;
        printf("%d: ", name); T(getsockopt(t, AF_VSOCK, name, pair, &len)); printf("%u %lu %lu\n", len, pair[0], pair[1]);
        len = 4; T(getsockopt(t, AF_VSOCK, name, pair, &len));
    }
    size = 1000; T(setsockopt(t, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &size, sizeof size));
    len = sizeof size; T(getsockopt(t, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, &len)); SHOW(size);
    size = 10; T(setsockopt(t, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, sizeof size));
    len = sizeof size; T(getsockopt(t, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, &len)); SHOW(size);
    T(setsockopt(t, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &size, 4));
    struct timeval v = { 1, 500000 };
    T(setsockopt(t, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &v, sizeof v));
    memset(&v, 0, sizeof v); len = sizeof v; T(getsockopt(t, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &v, &len)); SHOW(v.tv_sec); SHOW(v.tv_usec);
    v.tv_sec = -1; T(setsockopt(t, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &v, sizeof v));
    int number; len = sizeof number;
    T(getsockopt(t, SOL_SOCKET, SO_TYPE, &number, &len)); SHOW(number); T(getsockopt(t, SOL_SOCKET, SO_DOMAIN, &number, &len)); SHOW(number);
    T(getsockopt(t, SOL_SOCKET, SO_ACCEPTCONN, &number, &len)); SHOW(number);
    close(s); close(t);
}

int main(void) {
    enter("vsock_calls");
    each(SOCK_STREAM);
    each(SOCK_SEQPACKET);
    T(socket(AF_VSOCK, SOCK_RAW, 0)); T(socket(AF_VSOCK, SOCK_STREAM, 5));
    return leave();
}
