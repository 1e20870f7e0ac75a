#include "node/sessions.h"

#include <fmt/format.h>

#include <algorithm>

namespace th::node {

void Sessions::add(const std::vector<SessionSpec>& wanted) {
  for (const SessionSpec& spec : wanted) {
    if (sessions_.contains(spec.session) || sessions_.size() >= kMaxSessions) continue;
    http::Call dial = link_.call("GET", fmt::format("/api/v1/node/{}/sessions/{}", config_.vm, spec.session));
    dial.headers.emplace_back("Upgrade", kSessionProtocol);
    sessions_.try_emplace(spec.session, spec, find_rank_(spec.task), std::move(dial), config_.dir.string());
  }
}

void Sessions::tidy() {
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    Session& session = it->second;
    const Rank* rank = find_rank_(session.spec().task);
    if (rank == nullptr || !rank->running()) session.end("its rank has ended");
    it = session.done() ? sessions_.erase(it) : std::next(it);
  }
}

bool Sessions::reap(pid_t pid) {
  const auto of = std::ranges::find_if(sessions_, [&](const auto& s) { return s.second.pid() == pid; });
  if (of == sessions_.end()) return false;
  of->second.reap();
  return true;
}

}  // namespace th::node
