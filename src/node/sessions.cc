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

void Sessions::end_orphan(Session& session) {
  const Rank* rank = find_rank_(session.spec().task);
  if (rank == nullptr || !rank->running()) session.end("its rank has ended");
}

void Sessions::tidy() {
  for (auto it = sessions_.begin(); it != sessions_.end();) {
    end_orphan(it->second);
    it = it->second.done() ? sessions_.erase(it) : std::next(it);
  }
}

bool Sessions::reap(pid_t pid) {
  const auto of = std::ranges::find_if(sessions_, [&](const auto& s) { return s.second.pid() == pid; });
  if (of == sessions_.end()) return false;
  end_orphan(of->second);  // with the rank its processes were ended as well: that is told
  of->second.reap();
  return true;
}

}  // namespace th::node
