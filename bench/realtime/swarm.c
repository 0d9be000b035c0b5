// The load generator: thousands of WebSocket listeners in one thread, so that the server is the limit and not the client.
//
//   swarm PORT LISTENERS PREFIX ARRIVALS BATCH PATH [TOKENS] [GREETING]
//
// Connects and shakes hands, many at once; TOKENS is a token for the header or @FILE with one in each line, GREETING is
// sent after the handshake. Says "ready" when all are in, and answers pings. It counts frames whose payload begins with
// PREFIX and says "done N" whenever all listeners together have N * BATCH more. If ARRIVALS is not empty every such frame
// holds "t":<nanoseconds of CLOCK_MONOTONIC>, and the file of that name gets this number and the moment of arrival of
// each, as two 64-bit integers. It arrived when the kernel had it for the listener (SO_TIMESTAMPNS): when it is read
// depends on what else this core has to do. Of frames that are read together the last one's moment counts for all. On end
// of input it says "report" with fewest and most frames per listener, CPU seconds since then, and the pings answered.
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

// Whoever is quicker than the server falls asleep after every frame, and the server pays for waking it up each time:
// on one machine that costs more than the frame. So it looks a few times in a millisecond; arrivals are dated all the same.
static const struct timespec nap = {0, 200000};

enum { HEAD = 256, AT_ONCE = 500 };

typedef struct {
  int fd, have, is_in;       // have: bytes of the current frame's beginning that are kept in head
  uint64_t need, body, left; // length of its header, of its payload, and what is still to come
  uint64_t frames;
  unsigned char head[HEAD + 16];
} Listener;

typedef struct { uint64_t stamp, at; } Arrival;

static Arrival *arrivals;
static uint64_t arrived, room, counted, pings, in;
static const char *prefix, *greeting;
static size_t prefix_size;
static int measure, queue;
static uint64_t epoch;     // what CLOCK_REALTIME, which the kernel dates by, is ahead of CLOCK_MONOTONIC
static double connecting;  // processor seconds before all were in

static void fail(const char *what) { perror(what); exit(1); }

static uint64_t nanoseconds(const struct timespec *t) { return (uint64_t)t->tv_sec * 1000000000u + t->tv_nsec; }

static uint64_t clock_says(clockid_t which) {
  struct timespec t;
  clock_gettime(which, &t);
  return nanoseconds(&t);
}

static void send_frame(int fd, int opcode, const void *payload, size_t size) {  // at most 125 bytes; masked with zeros
  unsigned char frame[132] = {0x80 | opcode, 0x80 | (unsigned char)size, 0, 0, 0, 0};
  memcpy(frame + 6, payload, size);
  if (write(fd, frame, 6 + size) != (ssize_t)(6 + size)) fail("write");
}

static void ask(Listener *who, int port, const char *path, const char *token) {
  int fd = who->fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (measure && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one)) fail("SO_TIMESTAMPNS");
  char request[2048];
  int size = snprintf(request, sizeof request,
    "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s\r\n", path, *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
  if (write(fd, request, size) != size) fail("write");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = who};
  epoll_ctl(queue, EPOLL_CTL_ADD, fd, &event);
}

static void finish(Listener *who, uint64_t at) {
  const unsigned char *payload = who->head + who->need;
  if ((who->head[0] & 15) == 9) { pings++; send_frame(who->fd, 10, payload, who->body); return; }
  if ((who->head[0] & 15) == 8) {
    fprintf(stderr, "closed with %d\n", payload[0] << 8 | payload[1]);
    exit(1);
  }
  if (who->have < (int)(who->need + prefix_size) || memcmp(payload, prefix, prefix_size)) return;
  who->frames++;
  counted++;
  if (!measure) return;
  char *stamp = memmem(payload, who->have - who->need, "\"t\":", 4);
  if (arrived == room && !(arrivals = realloc(arrivals, (room = room ? 2 * room : 1 << 16) * sizeof *arrivals))) fail("memory");
  arrivals[arrived++] = (Arrival){stamp ? strtoull(stamp + 4, NULL, 10) : 0, at};
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
      if (!who->left) { finish(who, at); who->have = 0; }
      continue;
    }
    size_t part = size < who->left ? size : who->left, keep = HEAD - who->have;
    if (keep > part) keep = part;
    memcpy(who->head + who->have, data, keep);
    who->have += keep, data += part, size -= part, who->left -= part;
    if (!who->left) { finish(who, at); who->have = 0; }
  }
}

static ssize_t receive(int fd, void *data, size_t room, uint64_t *at) {
  if (!measure) return read(fd, data, room);
  union { struct cmsghdr aligned; char bytes[128]; } notes;
  struct iovec into = {data, room};
  struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = &notes, .msg_controllen = sizeof notes};
  ssize_t size = recvmsg(fd, &message, 0);
  struct cmsghdr *note = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  while (note && note->cmsg_type != SCM_TIMESTAMPNS) note = CMSG_NXTHDR(&message, note);
  struct timespec t;
  if (note) memcpy(&t, CMSG_DATA(note), sizeof t);
  *at = note ? nanoseconds(&t) - epoch : clock_says(CLOCK_MONOTONIC);  // the very first may be without a date
  return size;
}

static void hear(Listener *who) {
  static unsigned char data[(1 << 18) + 1];
  uint64_t at = 0;
  ssize_t size = receive(who->fd, data, sizeof data - 1, &at);
  if (size < 0 && errno == EAGAIN) return;
  if (size <= 0) { fprintf(stderr, "a listener was cut off\n"); exit(1); }
  unsigned char *start = data;
  if (!who->is_in) {  // the answer to the handshake comes in one piece
    data[size] = 0;
    if (size < 12 || memcmp(data + 9, "101", 3)) { fprintf(stderr, "refused: %.80s\n", data); exit(1); }
    start = memmem(data, size, "\r\n\r\n", 4);
    if (!start) { fprintf(stderr, "half a handshake\n"); exit(1); }
    start += 4;
    who->is_in = 1;
    in++;
    if (greeting) send_frame(who->fd, 1, greeting, strlen(greeting));
  }
  take(who, start, data + size - start, at);
}

static int turn(int patience) {  // returns 0 at the end of input
  struct epoll_event events[512];
  int ready = epoll_wait(queue, events, 512, patience);
  if (measure) epoch = clock_says(CLOCK_REALTIME) - clock_says(CLOCK_MONOTONIC);
  for (int i = 0; i < ready; i++) {
    char byte;
    if (events[i].data.ptr) hear(events[i].data.ptr);
    else if (read(0, &byte, 1) <= 0) return 0;
  }
  return 1;
}

static double used(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(Listener *all, int count, const char *path) {
  uint64_t least = UINT64_MAX, most = 0;
  for (int i = 0; i < count; i++) {
    if (all[i].frames < least) least = all[i].frames;
    if (all[i].frames > most) most = all[i].frames;
  }
  double busy = used() - connecting;
  FILE *file = measure ? fopen(path, "w") : NULL;
  if (measure && (!file || fwrite(arrivals, sizeof *arrivals, arrived, file) != arrived || fclose(file))) fail("arrivals");
  printf("report %lu %lu %.3f %lu\n", least, most, busy, pings);
  fflush(stdout);
}

static char **read_tokens(const char *given, int *count) {
  static char *one[1];
  one[0] = (char *)given, *count = 1;
  if (*given != '@') return one;
  FILE *file = fopen(given + 1, "r");
  char **tokens = calloc(20000, sizeof *tokens), *line = NULL;
  size_t room = 0;
  if (!file) fail("tokens");
  for (*count = 0; *count < 20000 && getline(&line, &room, file) > 0; tokens[(*count)++] = strdup(line)) line[strcspn(line, "\n")] = 0;
  return tokens;
}

int main(int argc, char **argv) {
  if (argc < 7) return 2;
  int port = atoi(argv[1]), count = atoi(argv[2]), known;
  prefix = argv[3], prefix_size = strlen(prefix), measure = *argv[4] != 0;
  uint64_t batch = strtoull(argv[5], NULL, 10) * count, told = 0;
  char **tokens = read_tokens(argc > 7 ? argv[7] : "", &known);
  greeting = argc > 8 ? argv[8] : NULL;
  queue = epoll_create1(0);
  Listener *all = calloc(count, sizeof *all);
  for (int i = 0; i < count; i++) {
    ask(&all[i], port, argv[6], tokens[i % known]);
    turn(0);
    while (in + AT_ONCE < (uint64_t)i) turn(-1);
  }
  while (in < (uint64_t)count) turn(-1);
  struct epoll_event input = {.events = EPOLLIN, .data.ptr = NULL};
  epoll_ctl(queue, EPOLL_CTL_ADD, 0, &input);
  connecting = used();
  printf("ready\n");
  fflush(stdout);
  do {
    while (counted - told * batch >= batch) { printf("done %lu\n", ++told); fflush(stdout); }
    if (counted % batch) nanosleep(&nap, NULL);
  } while (turn(-1));
  return report(all, count, argv[4]), 0;
}
