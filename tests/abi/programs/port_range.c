/* IP_LOCAL_PORT_RANGE: what it takes, and the ports that the system then chooses. */
#include "abi.h"
#include <netinet/in.h>
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif
static int set(int s, unsigned first, unsigned last) {
    unsigned range = last << 16 | first;
    return setsockopt(s, IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range, sizeof range);
}
static unsigned port(int s) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    getsockname(s, (struct sockaddr *)&at, &len);
    return ntohs(at.sin_port);
}
static int bind_any(int s) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return bind(s, (struct sockaddr *)&at, sizeof at);
}
static void kind(int type) {
    int s[6];
    for (int i = 0; i < 6; i++) s[i] = socket(AF_INET, type, 0);
    T(set(s[0], 40000, 39999));
    T(set(s[0], 40000, 0));
    T(setsockopt(s[0], IPPROTO_IP, IP_LOCAL_PORT_RANGE, "xx", 2));
    unsigned value = 1;
    socklen_t len = sizeof value;
    T(getsockopt(s[0], IPPROTO_IP, IP_LOCAL_PORT_RANGE, &value, &len));
    SHOW(value); SHOW(len);
    /* One port that is free, and nobody else's. */
    bind_any(s[1]);
    unsigned free = port(s[1]);
    close(s[1]);
    T(set(s[2], free, free)); T(bind_any(s[2])); SHOW(port(s[2]) == free);
    T(set(s[3], free, free)); T(bind_any(s[3]));
    T(set(s[4], 41000, 42000)); T(bind_any(s[4]));
    SHOW(port(s[4]) >= 41000 && port(s[4]) <= 42000);
    /* A range outside of the system's is none. */
    T(set(s[5], 100, 200));
    T(bind_any(s[5]));
    SHOW(port(s[5]) > 1024);
    for (int i = 0; i < 6; i++) close(s[i]);
}
int main(void) {
    enter("port_range");
    kind(SOCK_DGRAM);
    kind(SOCK_STREAM);
    /* connect chooses from it as well. */
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0), c[2];
    bind_any(listener);
    T(listen(listener, 5));
    getsockname(listener, (struct sockaddr *)&at, &len);
    c[0] = socket(AF_INET, SOCK_STREAM, 0);
    bind_any(c[0]);
    unsigned free = port(c[0]);
    close(c[0]);
    for (int i = 0; i < 2; i++) {
        c[i] = socket(AF_INET, SOCK_STREAM, 0);
        set(c[i], free, free);
        T(connect(c[i], (struct sockaddr *)&at, sizeof at));
    }
    SHOW(port(c[0]) == free);
    /* Closed hard, so that the port is free at once. */
    struct linger hard = {1, 0};
    setsockopt(c[0], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    for (int i = 0; i < 2; i++) close(c[i]);
    close(listener);
    int six = socket(AF_INET6, SOCK_DGRAM, 0);
    T(set(six, 40000, 40003));
    close(six);
    return leave();
}
