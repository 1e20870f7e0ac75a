/* The collectives of Open MPI over the same bytes as those of th-train collectives, which builds and starts this.
 * open_mpi BYTES RUNS N: rank 0 prints a line "name seconds checked" for each of the first N operations; seconds is the median of
 * the runs, of which each takes as long as its slowest rank. Inputs are ordinary memory (malloc), float32. */

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank, ranks;
static long count; /* floats of a rank's buffer; a multiple of the ranks */
static float *input, *data, *other;

/* Small integers, so that sums are exact in any order. */
static float value(long i, int of) { return (float)(i % 97 + 100 * of); }
static float sum(long i) { return (float)(i % 97 * ranks + 50 * ranks * (ranks - 1)); }

static void fill(void) {
  memcpy(data, input, sizeof(float) * (size_t)count);
  for (long i = 0; i < count; ++i) other[i] = -1;
}

/* In place, as ours are, where MPI can. */
static void all_reduce(void) { MPI_Allreduce(MPI_IN_PLACE, data, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }
static void reduce_scatter(void) {
  MPI_Reduce_scatter_block(MPI_IN_PLACE, data, (int)(count / ranks), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}
static void all_gather(void) {
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_FLOAT, data, (int)(count / ranks), MPI_FLOAT, MPI_COMM_WORLD);
}
static void broadcast(void) { MPI_Bcast(data, (int)count, MPI_FLOAT, 0, MPI_COMM_WORLD); }
static void all_to_all(void) {
  const int part = (int)(count / ranks);
  MPI_Alltoall(data, part, MPI_FLOAT, other, part, MPI_FLOAT, MPI_COMM_WORLD);
}
static void send(void) { /* rank 0 to 1, 2 to 3, … */
  if (rank % 2 == 0 && rank + 1 < ranks) MPI_Send(data, (int)count, MPI_FLOAT, rank + 1, 0, MPI_COMM_WORLD);
  if (rank % 2 == 1) MPI_Recv(data, (int)count, MPI_FLOAT, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static int check_all_reduce(long i) { return data[i] == sum(i); }
static int check_reduce_scatter(long i) {
  const long part = count / ranks;
  return i >= part || data[i] == sum(rank * part + i);
}
static int check_all_gather(long i) { return data[i] == value(i, (int)(i / (count / ranks))); }
static int check_broadcast(long i) { return data[i] == value(i, 0); }
static int check_all_to_all(long i) {
  const long part = count / ranks;
  return other[i] == value(rank * part + i % part, (int)(i / part));
}
static int check_send(long i) { return data[i] == value(i, rank % 2 == 1 ? rank - 1 : rank); }

static const struct {
  const char *name;
  void (*run)(void);
  int (*check)(long);
} operations[] = {
    {"all_reduce", all_reduce, check_all_reduce}, {"reduce_scatter", reduce_scatter, check_reduce_scatter},
    {"all_gather", all_gather, check_all_gather}, {"broadcast", broadcast, check_broadcast},
    {"all_to_all", all_to_all, check_all_to_all}, {"send", send, check_send},
};

static int by_size(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const size_t all = sizeof(operations) / sizeof(operations[0]);
  const size_t wanted = argc > 3 ? (size_t)atoi(argv[3]) : all;
  const int runs = argc > 2 ? atoi(argv[2]) : 0;
  count = (argc > 1 ? atol(argv[1]) : 0) / (long)sizeof(float);
  if (runs < 1 || count < ranks || count % ranks != 0) {
    if (rank == 0) fprintf(stderr, "usage: open_mpi BYTES RUNS OPERATIONS; want whole floats for each rank\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  input = malloc(sizeof(float) * (size_t)count);
  data = malloc(sizeof(float) * (size_t)count);
  other = malloc(sizeof(float) * (size_t)count);
  double *seconds = malloc(sizeof(double) * (size_t)runs);
  if (input == NULL || data == NULL || other == NULL || seconds == NULL) MPI_Abort(MPI_COMM_WORLD, 1);
  for (long i = 0; i < count; ++i) input[i] = value(i, rank);
  for (size_t o = 0; o < wanted && o < all; ++o) {
    int right = 1, all_right = 0;
    for (int run = 0; run < runs; ++run) {
      fill();
      MPI_Barrier(MPI_COMM_WORLD);
      const double start = MPI_Wtime();
      operations[o].run();
      const double took = MPI_Wtime() - start;
      MPI_Allreduce(&took, &seconds[run], 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
      for (long i = 0; i < count; ++i) right = right && operations[o].check(i);
    }
    MPI_Allreduce(&right, &all_right, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    qsort(seconds, (size_t)runs, sizeof(double), by_size);
    if (rank == 0) printf("%s %.9f %d\n", operations[o].name, seconds[runs / 2], all_right);
  }
  MPI_Finalize();
  return 0;
}
