/* Blocking sockets and musl's own resolver, in a static binary; TLS by Mbed TLS.
   fetch URL CA [plain|thread|six]: in the only thread, in one of two, or by an IPv6 socket and IPv4-mapped addresses.
   fetch names NAME: the addresses that it has, as getaddrinfo sorts them. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mbedtls/ctr_drbg.h"
#include "mbedtls/entropy.h"
#include "mbedtls/error.h"
#include "mbedtls/ssl.h"

static char answer[1 << 20];

static void fail(const char *what, const char *why) {
    printf("error %s: %s\n", what, why);
    exit(1);
}

static void check(int code, const char *what) {
    char text[128];
    if (code == 0) return;
    mbedtls_strerror(code, text, sizeof text);
    fail(what, text);
}

static int dial(const char *host, const char *port, int six) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (six) hints.ai_family = AF_INET6, hints.ai_flags = AI_V4MAPPED;
    int code = getaddrinfo(host, port, &hints, &found), last = 0;
    if (code != 0) fail("getaddrinfo", gai_strerror(code));
    for (struct addrinfo *one = found; one; one = one->ai_next) {
        int fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen) == 0) return fd;
        last = errno;
        close(fd);
    }
    fail("connect", strerror(last));
    return -1;
}

static int put(void *fd, const unsigned char *data, size_t size) {
    ssize_t sent = write(*(int *)fd, data, size);
    return sent >= 0 ? (int)sent : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int take(void *fd, unsigned char *data, size_t size) {
    ssize_t got = read(*(int *)fd, data, size);
    return got >= 0 ? (int)got : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static mbedtls_ssl_context *secure(int *fd, const char *host, const char *ca) {
    static mbedtls_ssl_context tls;
    static mbedtls_ssl_config settings;
    static mbedtls_x509_crt authority;
    static mbedtls_entropy_context entropy;
    static mbedtls_ctr_drbg_context random;
    mbedtls_ssl_init(&tls);
    mbedtls_ssl_config_init(&settings);
    mbedtls_x509_crt_init(&authority);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    check(mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0), "random numbers");
    check(mbedtls_x509_crt_parse_file(&authority, ca), ca);
    check(mbedtls_ssl_config_defaults(&settings, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                      MBEDTLS_SSL_PRESET_DEFAULT), "settings");
    mbedtls_ssl_conf_ca_chain(&settings, &authority, NULL);
    mbedtls_ssl_conf_rng(&settings, mbedtls_ctr_drbg_random, &random);
    check(mbedtls_ssl_setup(&tls, &settings), "settings");
    check(mbedtls_ssl_set_hostname(&tls, host), "host");
    mbedtls_ssl_set_bio(&tls, fd, put, take, NULL);
    check(mbedtls_ssl_handshake(&tls), "handshake");
    return &tls;
}

static void *fetch(void *arguments) {
    const char *url = ((char **)arguments)[1], *ca = ((char **)arguments)[2], *way = ((char **)arguments)[3];
    char host[256] = "", port[8] = "", request[512];
    int safe = strncmp(url, "https://", 8) == 0;
    const char *rest = url + (safe ? 8 : 7);
    if (sscanf(rest, "%255[^:/]:%7[0-9]", host, port) < 2) strcpy(port, safe ? "443" : "80");
    const char *path = strchr(rest, '/') ? strchr(rest, '/') : "/";
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host);

    int fd = dial(host, port, way && strcmp(way, "six") == 0), size = 0, got;
    mbedtls_ssl_context *tls = safe ? secure(&fd, host, ca) : NULL;
    if ((tls ? mbedtls_ssl_write(tls, (unsigned char *)request, length) : write(fd, request, length)) != length)
        fail("write", strerror(errno));
    while (size < (int)sizeof answer - 1) {
        unsigned char *next = (unsigned char *)answer + size;
        size_t space = sizeof answer - 1 - size;
        got = tls ? mbedtls_ssl_read(tls, next, space) : (int)read(fd, next, space);
        if (got == 0 || got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) break;
        if (got < 0) fail("read", tls ? "TLS" : strerror(errno));
        size += got;
    }
    const char *body = strstr(answer, "\r\n\r\n");
    if (!body) fail("answer", "the connection was closed before it was whole");
    for (char *one = answer; *one; one++)
        if (*one == '\n' && one > body + 3) *one = ' ';
    printf("answer %.3s %s\n", answer + 9, body + 4);
    return NULL;
}

static void names(const char *host) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[INET6_ADDRSTRLEN];
    int code = getaddrinfo(host, "80", &hints, &found);
    if (code != 0) fail("getaddrinfo", gai_strerror(code));
    for (; found; found = found->ai_next) {
        struct sockaddr *to = found->ai_addr;
        const void *address = to->sa_family == AF_INET ? (void *)&((struct sockaddr_in *)to)->sin_addr
                                                       : (void *)&((struct sockaddr_in6 *)to)->sin6_addr;
        puts(inet_ntop(to->sa_family, address, text, sizeof text));
    }
}

int main(int count, char **arguments) {
    pthread_t thread;
    if (count < 3) fail("arguments", "URL CA [WAY], or names NAME");
    if (strcmp(arguments[1], "names") == 0)
        names(arguments[2]);
    else if (count < 4 || strcmp(arguments[3], "thread") != 0)
        fetch(arguments);
    else if (pthread_create(&thread, NULL, fetch, arguments) || pthread_join(thread, NULL))
        fail("thread", strerror(errno));
    return 0;
}
