// The load generator: thousands of WebSocket listeners in one thread, so that the server is the limit and not the client.
//
//   swarm PORT LISTENERS PREFIX MEASURE BATCH PATH [TOKEN] [GREETING]
//
// Connects, shakes hands (with TOKEN in a header), sends GREETING if there is one, and says "ready". From then on it
// counts frames whose payload begins with PREFIX and says "done N" whenever all listeners together have N * BATCH more.
// With MEASURE 1 every such frame holds "t":<nanoseconds of CLOCK_MONOTONIC>, and the age of each is kept. On end of
// input it says "report" with fewest and most frames per listener, CPU seconds, and the ages' quantiles in milliseconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 256, SLOTS = 200000 };  // ages are kept in slots of 0.05 ms

typedef struct {
  int fd, have;              // bytes of the current frame's beginning that are kept in head
  uint64_t need, body, left; // length of its header, of its payload, and what is still to come
  uint64_t frames;
  unsigned char head[HEAD + 16];
} Listener;

static uint64_t slots[SLOTS], counted;
static const char *prefix;
static size_t prefix_size;
static int measure;

static void fail(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void write_all(int fd, const void *data, size_t size) {
  if (write(fd, data, size) != (ssize_t)size) fail("write");
}

static void send_text(int fd, const char *text) {
  size_t size = strlen(text);
  unsigned char frame[132] = {0x81, 0x80 | (unsigned char)size, 0, 0, 0, 0};
  memcpy(frame + 6, text, size);
  write_all(fd, frame, 6 + size);
}

static int open_listener(int port, const char *path, const char *token) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  char request[2048], answer[4096];
  int size = snprintf(request, sizeof request,
    "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s\r\n", path, *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
  write_all(fd, request, size);
  for (char *end = NULL; !end;) {  // take the head and leave the first frames in the socket
    ssize_t size = recv(fd, answer, sizeof answer, MSG_PEEK);
    if (size <= 0) fail("handshake");
    end = memmem(answer, size, "\r\n\r\n", 4);
    if (read(fd, answer, end ? end + 4 - answer : 0) < 0) fail("handshake");
  }
  if (memcmp(answer + 9, "101", 3)) { fprintf(stderr, "refused: %.80s\n", answer); exit(1); }
  return fd;
}

static void finish(Listener *who, uint64_t at) {
  const unsigned char *payload = who->head + who->need;
  if (who->have < (int)(who->need + prefix_size) || memcmp(payload, prefix, prefix_size)) return;
  who->frames++;
  counted++;
  if (!measure) return;
  char *stamp = memmem(payload, who->have - who->need, "\"t\":", 4);
  uint64_t age = stamp ? (at - strtoull(stamp + 4, NULL, 10)) / 50000 : 0;
  slots[age < SLOTS ? age : SLOTS - 1]++;
}

static void take(Listener *who, const unsigned char *data, size_t size, uint64_t at) {
  while (size) {
    if (!who->left) {  // still in the header
      who->head[who->have++] = *data++, size--;
      if (who->have == 2) who->need = who->head[1] < 126 ? 2 : who->head[1] == 126 ? 4 : 10;
      if (who->have < 2 || (uint64_t)who->have < who->need) continue;
      who->body = who->need == 2 ? who->head[1] : 0;
      for (uint64_t i = 2; i < who->need; i++) who->body = who->body << 8 | who->head[i];
      who->left = who->body;
      if (!who->left) who->have = 0;
      continue;
    }
    size_t part = size < who->left ? size : who->left, keep = HEAD - who->have;
    if (keep > part) keep = part;
    memcpy(who->head + who->have, data, keep);
    who->have += keep, data += part, size -= part, who->left -= part;
    if (!who->left) { finish(who, at); who->have = 0; }
  }
}

static void report(Listener *all, int count) {
  uint64_t least = UINT64_MAX, most = 0, total = 0, seen = 0;
  for (int i = 0; i < count; i++) {
    if (all[i].frames < least) least = all[i].frames;
    if (all[i].frames > most) most = all[i].frames;
  }
  for (int i = 0; i < SLOTS; i++) total += slots[i];
  double marks[] = {0.5, 0.99, 0.999}, found[] = {0, 0, 0};
  for (int i = 0, m = 0; i < SLOTS && m < 3; i++)
    for (seen += slots[i]; m < 3 && total && seen >= marks[m] * total; m++) found[m] = (i + 1) * 0.05;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  printf("report %lu %lu %.3f %.2f %.2f %.2f\n", least, most, cpu, found[0], found[1], found[2]);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 7) return 2;
  int port = atoi(argv[1]), count = atoi(argv[2]), queue = epoll_create1(0);
  prefix = argv[3], prefix_size = strlen(prefix), measure = atoi(argv[4]);
  uint64_t batch = strtoull(argv[5], NULL, 10) * count, told = 0;
  Listener *all = calloc(count, sizeof *all);
  for (int i = 0; i < count; i++) {
    all[i].fd = open_listener(port, argv[6], argc > 7 ? argv[7] : "");
    if (argc > 8) send_text(all[i].fd, argv[8]);
    fcntl(all[i].fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
    epoll_ctl(queue, EPOLL_CTL_ADD, all[i].fd, &event);
  }
  struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(queue, EPOLL_CTL_ADD, 0, &input);
  printf("ready\n");
  fflush(stdout);
  static unsigned char data[1 << 18];
  struct epoll_event events[512];
  for (;;) {
    int ready = epoll_wait(queue, events, 512, -1);
    for (int i = 0; i < ready; i++) {
      Listener *who = events[i].data.ptr;
      if (!who) {
        char byte;
        if (read(0, &byte, 1) <= 0) return report(all, count), 0;
        continue;
      }
      ssize_t size = read(who->fd, data, sizeof data);
      if (size > 0) take(who, data, size, measure ? now() : 0);
      else if (size == 0 || errno != EAGAIN) { fprintf(stderr, "a listener was cut off\n"); return 1; }
    }
    while (counted - told * batch >= batch) { printf("done %lu\n", ++told); fflush(stdout); }
  }
}
