#pragma once
// Ranks of a test as processes, each a fork that reports through its exit code, and what they check.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <vector>

#include "collective/collective.h"

namespace th::collective {

inline pid_t spawn(const std::function<bool()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body() ? 0 : 1);
  return pid;
}

/// Waits for its end; 128 and the number of the signal where one ended it.
inline int exit_code(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline void store(float value, float& into) { into = value; }
inline void store(float value, Bf16& into) { into = to_bf16(value); }

/// Value i of a rank, rounded to T: integers, so that sums in float32 are exact in any order.
template <class T>
T value_of(int rank, size_t i) {
  T value;
  store(static_cast<float>(i % 97 + 100 * static_cast<size_t>(rank)), value);
  return value;
}
template <class T>
std::vector<T> values_of(int rank, size_t size) {
  std::vector<T> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = value_of<T>(rank, i);
  return values;
}
template <class T>
std::vector<T> sums_of(int world, size_t size) {
  std::vector<T> sums(size);
  for (size_t i = 0; i < size; ++i) {
    float sum = 0;
    for (int rank = 0; rank < world; ++rank) sum += to_float(value_of<T>(rank, i));
    store(sum, sums[i]);
  }
  return sums;
}

/// Elements [begin, end) are the same.
template <class T>
bool same(const std::vector<T>& got, const std::vector<T>& want, size_t begin, size_t end) {
  bool good = got.size() == want.size();
  for (size_t i = begin; good && i < end; ++i) good = to_float(got[i]) == to_float(want[i]);
  return good;
}

template <class T>
bool all_to_all_works(Group& group, size_t size) {
  const int world = group.world_size();
  const size_t each = shard_of(size, group.rank(), world).size();
  std::vector<T> out = values_of<T>(group.rank(), size), in(each * world), want;
  if (!group.all_to_all(out, in)) return false;
  for (int rank = 0; rank < world; ++rank) {
    for (size_t i = 0; i < each; ++i)
      want.push_back(value_of<T>(rank, shard_of(size, group.rank(), world).begin + i));
  }
  return same(in, want, 0, in.size());
}

/// Each rank sends to the next, and the last to the first.
template <class T>
bool send_works(Group& group, size_t size) {
  const int world = group.world_size(), rank = group.rank(), before = (rank + world - 1) % world;
  std::vector<T> out = values_of<T>(rank, size), in(size);
  const auto send = [&] { return group.send(out, (rank + 1) % world).has_value(); };
  const auto receive = [&] { return group.receive(in, before).has_value(); };
  const bool good = rank == 0 ? send() && receive() : receive() && send();
  return good && same(in, values_of<T>(before, size), 0, size);
}

/// Every operation gives what it should, on `size` numbers of type T.
template <class T>
bool operations_work(Group& group, size_t size) {
  const int world = group.world_size(), rank = group.rank();
  const std::vector<T> sums = sums_of<T>(world, size);
  const Shard mine = shard_of(size, rank, world);
  const auto say = [&](bool good, const char* what) {
    if (!good) std::fprintf(stderr, "rank %d of %d: %s of %zu is wrong\n", rank, world, what, size);
    return good;
  };
  std::vector<T> data = values_of<T>(rank, size);
  if (!say(group.all_reduce(data) && same(data, sums, 0, size), "all_reduce")) return false;

  data = values_of<T>(rank, size);
  if (!say(group.reduce_scatter(data) && same(data, sums, mine.begin, mine.end), "reduce_scatter"))
    return false;

  data = values_of<T>(rank, size);
  bool good = group.all_gather(data).has_value();
  for (int other = 0; other < world; ++other) {
    const Shard shard = shard_of(size, other, world);
    good = good && same(data, values_of<T>(other, size), shard.begin, shard.end);
  }
  if (!say(good, "all_gather")) return false;
  for (int root : {0, world - 1}) {
    data = values_of<T>(rank, size);
    if (!say(group.broadcast(data, root) && same(data, values_of<T>(root, size), 0, size), "broadcast"))
      return false;
  }
  return say(all_to_all_works<T>(group, size), "all_to_all") && say(send_works<T>(group, size), "send") &&
         say(group.barrier().has_value(), "barrier");
}

}  // namespace th::collective
