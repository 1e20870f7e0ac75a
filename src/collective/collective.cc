#include "collective/collective.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>

namespace th::collective {
namespace {

std::string_view env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view{} : value;
}

Result<int> env_int(const char* name, int fallback, int min, int max) {
  const std::string_view text = env(name);
  if (text.empty()) return fallback;
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return fail(
        Code::kInvalidArgument,
        fmt::format("environment variable {}: want an integer {} … {}, got '{}'", name, min, max, text));
  }
  return value;
}

constexpr int kMaxWorld = 1 << 20;

}  // namespace

Result<Rendezvous> rendezvous_from_env() {
  Rendezvous rendezvous;
  const bool has_rank = !env("RANK").empty(), has_world = !env("WORLD_SIZE").empty();
  if (has_rank != has_world) {
    return fail(Code::kInvalidArgument,
                fmt::format("environment variable {} is missing; set RANK and WORLD_SIZE, or none",
                            has_rank ? "WORLD_SIZE" : "RANK"));
  }
  TH_TRY(rendezvous.world_size, env_int("WORLD_SIZE", 1, 1, kMaxWorld));
  TH_TRY(rendezvous.rank, env_int("RANK", 0, 0, rendezvous.world_size - 1));
  TH_TRY(rendezvous.master_port, env_int("MASTER_PORT", 0, 0, 65535));
  TH_TRY(rendezvous.attempt, env_int("TH_ATTEMPT", 0, 0, std::numeric_limits<int>::max()));
  if (!env("MASTER_ADDR").empty()) rendezvous.master_addr = env("MASTER_ADDR");
  rendezvous.job_id = env(env("TH_JOB_ID").empty() ? "SLURM_JOB_ID" : "TH_JOB_ID");
  return rendezvous;
}

Shard shard_of(size_t size, int rank, int world_size) {
  const size_t world = world_size, part = size / world, rest = size % world, r = rank;
  const size_t begin = r * part + std::min(r, rest);
  return {begin, begin + part + (r < rest ? 1 : 0)};
}

Status Group::reduce_scatter(std::span<float> data) {
  return backend_ ? backend_->reduce_scatter(data) : Status();
}
Status Group::all_gather(std::span<float> data) { return backend_ ? backend_->all_gather(data) : Status(); }
Status Group::all_reduce(std::span<float> data) { return backend_ ? backend_->all_reduce(data) : Status(); }
Status Group::broadcast(std::span<float> data, int root) {
  TH_CHECK(root >= 0 && root < world_size_);
  return backend_ ? backend_->broadcast(data, root) : Status();
}
Status Group::barrier() { return backend_ ? backend_->barrier() : Status(); }

}  // namespace th::collective
