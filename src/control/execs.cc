#include "control/execs.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/units.h"

namespace th::control {
namespace {

constexpr int64_t kJoinNs = 20 * kSecond;      // for both ends to come
constexpr int64_t kTellAgainNs = 3 * kSecond;  // where the answer may have been lost

}  // namespace

Result<std::string> Execs::open(const ledger::Job& job, const Asked& asked) {
  const std::string& name = job.submitted.job;
  if (core_.has_own_gangs())
    return fail(Code::kFailedPrecondition,
                "job '" + name + "' was started by Slurm: use its own 'srun --overlap --jobid=…' there");
  if (asked.rank < 0 || asked.rank >= static_cast<int64_t>(job.ranks.size()))
    return fail(Code::kNotFound,
                fmt::format("job '{}' has no rank {}; it has {}", name, asked.rank, job.ranks.size()));
  const ledger::Rank& rank = job.ranks[static_cast<size_t>(asked.rank)];
  if (job.state != ledger::JobState::kRunning || rank.exited)
    return fail(Code::kFailedPrecondition,
                fmt::format("rank {} of job '{}' does not run: the job is {}; wait until "
                            "it runs",
                            asked.rank, name, ledger::name_of(job.state)));
  const auto of_node =
      std::ranges::count_if(execs_, [&](const auto& e) { return e.second.vm == rank.place.vm; });
  if (of_node >= static_cast<int64_t>(node::kMaxSessions))
    return fail(Code::kResourceExhausted, "node '" + rank.place.vm + "' has 64 sessions open; end one first");
  Exec exec;
  exec.vm = rank.place.vm, exec.opened_ns = core_.monotonic_ns();
  exec.spec.session = "exec-" + core_.token().substr(0, 32);
  exec.spec.task = {name, static_cast<int>(job.attempt), static_cast<int>(asked.rank)};
  exec.spec.argv = asked.argv, exec.spec.terminal = asked.terminal;
  exec.spec.rows = static_cast<int>(asked.rows), exec.spec.columns = static_cast<int>(asked.columns);
  const std::string id = exec.spec.session;
  execs_.emplace(id, std::move(exec));
  return id;
}

std::string Execs::job_of(const std::string& id) const {
  const auto exec = execs_.find(id);
  return exec == execs_.end() ? "" : exec->second.spec.task.job;
}

bool Execs::has_news(const std::string& vm) const {
  return std::ranges::any_of(execs_, [&](const auto& item) {
    const Exec& exec = item.second;
    return is_for(exec, vm) && (exec.told_ns == 0 || core_.monotonic_ns() - exec.told_ns > kTellAgainNs);
  });
}

std::vector<node::SessionSpec> Execs::tell(const std::string& vm) {
  std::vector<node::SessionSpec> out;
  for (auto& [id, exec] : execs_) {
    if (!is_for(exec, vm)) continue;
    exec.told_ns = core_.monotonic_ns();
    out.push_back(exec.spec);
  }
  return out;
}

Status Execs::join_client(const std::string& id, http::Responder responder, http::Headers upgrade) {
  return join(id, &Exec::client, {std::move(responder), std::move(upgrade)});
}

Status Execs::join_node(const std::string& vm, const std::string& id, http::Responder responder) {
  const auto exec = execs_.find(id);
  if (exec == execs_.end() || exec->second.vm != vm)
    return fail(Code::kNotFound, "session '" + id + "' is not wanted here any more");
  return join(id, &Exec::node, {std::move(responder), {{"Upgrade", node::kSessionProtocol}}});
}

Status Execs::join(const std::string& id, std::optional<End> Exec::*end, End with) {
  const auto found = execs_.find(id);
  if (found == execs_.end())
    return fail(Code::kNotFound,
                "session '" + id.substr(0, 80) + "' does not exist or has ended; open another");
  Exec& exec = found->second;
  if (exec.*end || exec.tunnel) return fail(Code::kAlreadyExists, "session '" + id + "' is in use already");
  exec.*end = std::move(with);
  if (!exec.client || !exec.node) return {};
  const http::Tunnel client = exec.client->responder.tunnel(exec.client->upgrade);
  const http::Tunnel node = exec.node->responder.tunnel(exec.node->upgrade);
  http::Tunnel::join(client, node);
  exec.client.reset(), exec.node.reset();
  exec.tunnel = client;
  return {};
}

void Execs::step() {
  std::erase_if(execs_, [&](const auto& item) {
    const Exec& exec = item.second;
    if (exec.tunnel) return !exec.tunnel->alive();
    if (core_.monotonic_ns() - exec.opened_ns < kJoinNs) return false;
    const Error late{
        Code::kUnavailable,
        "node '" + exec.vm + "' did not open the session within 20 s; th nodes list shows its state"};
    if (exec.client) exec.client->responder.fail(late);
    if (exec.node)
      exec.node->responder.fail({Code::kNotFound, "nobody came for session '" + item.first + "'"});
    return true;
  });
}

}  // namespace th::control
