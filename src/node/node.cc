#include "node/node.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "base/env.h"
#include "base/files.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "node/job_folder.h"
#include "node/link.h"
#include "node/mailbox.h"
#include "node/memory_limit.h"
#include "node/rank.h"
#include "node/sessions.h"
#include "node/spawn.h"
#include "node/validate.h"

namespace th::node {
namespace {

constexpr int64_t kReadEveryNs = 100 * kMillisecond;  // how often growing files are read
constexpr int64_t kProbeEveryNs = 250 * kMillisecond;
constexpr int64_t kFarewellNs = 3 * kSecond;  // for the last reports and logs of an ending node

int64_t now() { return Env::real().monotonic_ns(); }

/// The first rank of an attempt stages for all of them on this node.
struct Stage {
  std::optional<Status> result;
  std::jthread worker;
};

struct Entry {
  std::unique_ptr<Rank> rank;
  bool desired = true;
  bool log_dirty = false;
  bool probing = false;
  int64_t next_probe_ns = 0;
  std::vector<int> watches;
};

class Node {
 public:
  Node(const NodeConfig& config, std::optional<User> user);
  Status run();

 private:
  void apply(const SyncReply& reply);
  void in_touch(std::optional<int64_t> since_ns);
  void add(const Task& task);
  void start_staged();
  void start(Entry& entry);
  void forget_finished(int64_t now_ns);
  void read_signals();
  void reap();
  void read_changes();
  void probe(int64_t now_ns);
  void push_logs(int64_t now_ns);
  void on_log(const std::string& task, const Result<int64_t>& next_offset);
  void sync(int64_t now_ns);
  void end(std::string_view why, bool say_farewell);
  bool finished(int64_t now_ns) const;
  int timeout_ms(int64_t now_ns) const;
  void watch(Entry& entry, int fd);
  static std::string attempt_of(const TaskId& id) { return fmt::format("{}.{}", id.job, id.attempt); }

  const NodeConfig& config_;
  std::optional<User> user_;
  MemoryLimiter limiter_;
  RankHost host_{config_, limiter_, probe_isolation(user_, config_), {config_.jobs_dir, config_.controller}};
  std::string boot_id_ = random_token().substr(0, 16);
  std::optional<Validation> validation_;
  bool asking_time_ = false;
  std::optional<int64_t> in_touch_since_ns_;  // none: the controller does not answer
  int64_t generation_ = 0;
  std::map<std::string, Entry> entries_;  // by task id
  std::set<std::string> forgotten_;       // ids that left; never started again by this node
  std::map<int, std::string> watches_;    // inotify watch → task id
  std::string last_log_;                  // task whose log was pushed last: they take turns
  int64_t read_at_ns_ = 0;                // when changed files are looked at again
  std::optional<int64_t> end_by_ns_;      // set: ending
  UniqueFd signals_, changes_;
  Mailbox mailbox_;
  Link link_;
  Sessions sessions_{config_, link_, [this](const TaskId& task) -> const Rank* {
                       const auto entry = entries_.find(task.text());
                       return entry == entries_.end() ? nullptr : entry->second.rank.get();
                     }};
  http::Client probes_{1};
  std::map<std::string, Stage> stages_;  // by attempt; after mailbox_, which its workers post to
};

Node::Node(const NodeConfig& config, std::optional<User> user)
    : config_(config),
      user_(std::move(user)),
      limiter_(MemoryLimiter::detect(fmt::format("thunderhead-{}-{}", config.vm, getpid()))),
      signals_(block_signals()),
      changes_(inotify_init1(IN_CLOEXEC | IN_NONBLOCK)),
      link_(config_, mailbox_,
            {[this](const SyncReply& reply) { apply(reply); },
             [this] { end("the controller does not know this VM any more", false); },
             [this] {
               in_touch(std::nullopt);
               if (!std::filesystem::exists(config_.dir)) end("its folder is gone", false);
             },
             [this](const std::string& task, const Result<int64_t>& next) { on_log(task, next); }}) {
  log_info("memory limits by {}", limiter_.describe());
}

Status Node::run() {
  // Orphans of ranks come to this process, so that none outlives its task unseen.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (!limiter_.dir().empty()) {
    TH_RETURN_IF_ERROR(write_file_durable(config_.dir / "cgroup", limiter_.dir().string(), 0600));
  }
  while (true) {
    int64_t time = now();
    for (auto& [id, entry] : entries_) entry.rank->kill_overdue(time);
    sessions_.tidy();
    start_staged();
    probe(time);
    push_logs(time);
    forget_finished(time);
    if (finished(time)) return {};
    sync(time);
    // Growing files are looked at in batches: a rank that prints much must not wake this loop for each line.
    pollfd fds[] = {{signals_.get(), POLLIN, 0},
                    {mailbox_.fd(), POLLIN, 0},
                    {time >= read_at_ns_ ? changes_.get() : -1, POLLIN, 0}};
    poll(fds, 3, timeout_ms(time));
    if (fds[0].revents != 0) read_signals();
    if (fds[1].revents != 0) mailbox_.run_posted();
    if (fds[2].revents != 0) read_changes();
  }
}

void Node::read_signals() {
  signalfd_siginfo info;
  while (read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) end("it was told to end", true);
  }
  reap();
}

void Node::reap() {
  while (true) {
    siginfo_t info{};
    // Only a look: a rank's number stays its own until Rank::reap has ended its group.
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    auto owner = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) {
      return e.second.rank->running() && e.second.rank->pid() == info.si_pid;
    });
    if (owner == entries_.end()) {
      if (!sessions_.reap(info.si_pid)) waitpid(info.si_pid, nullptr, 0);  // an orphan of a rank
      continue;
    }
    Entry& entry = owner->second;
    entry.rank->reap(now());
    entry.rank->metrics().read_more();
    entry.log_dirty = true;
  }
}

void Node::in_touch(std::optional<int64_t> since_ns) {
  in_touch_since_ns_ = since_ns;
  for (auto& [id, entry] : entries_) entry.rank->in_touch(since_ns);
}

void Node::apply(const SyncReply& reply) {
  if (!in_touch_since_ns_) in_touch(now());
  for (const auto& [id, line_no] : reply.ack_metrics) {
    if (auto it = entries_.find(id); it != entries_.end()) it->second.rank->ack_metrics(line_no, now());
  }
  if (end_by_ns_) return;
  std::set<std::string> wanted;
  for (const Task& task : reply.tasks) wanted.insert(task.id.text());
  for (auto& [id, entry] : entries_) {
    if (wanted.contains(id)) continue;
    entry.desired = false;
    entry.rank->stop(now());
  }
  for (const Task& task : reply.tasks) {
    const auto known = entries_.find(task.id.text());
    if (known != entries_.end()) known->second.rank->signal_once(task);
    if (known == entries_.end() && !forgotten_.contains(task.id.text())) add(task);
  }
  generation_ = reply.generation;
  sessions_.add(reply.sessions);
}

void Node::add(const Task& task) {
  const auto user = user_of(tenant_of(task), user_, config_.jobs_dir);
  auto& rank = entries_[task.id.text()].rank =
      std::make_unique<Rank>(task, user.value_or(std::nullopt), host_);
  rank->in_touch(in_touch_since_ns_);
  if (!user) return rank->fail_to_start(user.error().message);
  std::string attempt = attempt_of(task.id);
  auto [it, fresh] = stages_.try_emplace(attempt);
  if (!fresh) return;
  Staging staging{config_.jobs_dir, task.id.job,      slice_of(task), task.files,
                  task.stage,       config_.registry, *user};
  it->second.worker = std::jthread([this, attempt, staging = std::move(staging)](std::stop_token stop) {
    Status result = stage_job(staging, stop);
    mailbox_.post([this, attempt, result] {
      if (auto it = stages_.find(attempt); it != stages_.end()) it->second.result = result;
    });
  });
}

void Node::start_staged() {
  for (auto& [id, entry] : entries_) {
    if (entry.rank->running() || entry.rank->exited()) continue;
    const Stage& stage = stages_.at(attempt_of(entry.rank->task().id));
    if (!stage.result) continue;
    if (*stage.result) {
      start(entry);
    } else {
      entry.rank->fail_to_start(stage.result->error().message);
    }
  }
}

void Node::start(Entry& entry) {
  entry.rank->start();
  if (!entry.rank->running()) return;
  watch(entry, entry.rank->log().fd());
  if (entry.rank->metrics_fd() >= 0) watch(entry, entry.rank->metrics_fd());
  // What was written before the watch made no event.
  entry.log_dirty = true;
  entry.rank->metrics().read_more();
}

void Node::watch(Entry& entry, int fd) {
  int id = inotify_add_watch(changes_.get(), fmt::format("/proc/self/fd/{}", fd).c_str(), IN_MODIFY);
  if (id < 0) return log_warn("{}: output is not watched: {}", entry.rank->task().id.text(), strerror(errno));
  watches_[id] = entry.rank->task().id.text();
  entry.watches.push_back(id);
}

void Node::read_changes() {
  alignas(inotify_event) char buffer[16384];
  std::set<std::string> changed;
  ssize_t n;
  while ((n = read(changes_.get(), buffer, sizeof buffer)) > 0) {
    for (ssize_t at = 0; at < n;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof *event) + event->len;
      if (event->mask & IN_Q_OVERFLOW) {
        for (const auto& [id, entry] : entries_) changed.insert(id);
      } else if (auto it = watches_.find(event->wd); it != watches_.end()) {
        changed.insert(it->second);
      }
    }
  }
  for (const std::string& id : changed) {
    Entry& entry = entries_.at(id);
    entry.log_dirty = true;
    entry.rank->metrics().read_more();
  }
  read_at_ns_ = now() + kReadEveryNs;
}

void Node::forget_finished(int64_t now_ns) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    Entry& entry = it->second;
    const bool done =
        entry.rank->exited() && entry.rank->log().all_sent() && entry.rank->metrics_drained(now_ns);
    if (entry.desired || !done) {
      ++it;
      continue;
    }
    for (int id : entry.watches) {
      inotify_rm_watch(changes_.get(), id);
      watches_.erase(id);
    }
    forgotten_.insert(it->first);
    std::string attempt = attempt_of(entry.rank->task().id);
    it = entries_.erase(it);
    bool used = std::any_of(entries_.begin(), entries_.end(),
                            [&](const auto& e) { return attempt_of(e.second.rank->task().id) == attempt; });
    if (!used) stages_.erase(attempt);
  }
}

void Node::probe(int64_t now_ns) {
  for (auto& [id, entry] : entries_) {
    const auto& url = entry.rank->task().ready_url;
    bool due = url && entry.rank->report(now_ns).state == TaskState::kRunning && entry.rank->running();
    if (!due || entry.probing || now_ns < entry.next_probe_ns) continue;
    entry.probing = true;
    http::Call call{.url = *url, .timeout_ns = 2 * kSecond, .max_body_bytes = 1 << 20};
    fetch_async(probes_, mailbox_, std::move(call), [this, id](const Result<http::Response>& response) {
      auto it = entries_.find(id);
      if (it == entries_.end()) return;
      it->second.probing = false;
      it->second.next_probe_ns = now() + kProbeEveryNs;
      if (response && response->status == 200) it->second.rank->set_ready();
    });
  }
}

void Node::push_logs(int64_t now_ns) {
  if (!link_.log_idle(now_ns)) return;
  // One piece at a time, the next task's after the last one's.
  auto first = entries_.upper_bound(last_log_);
  for (size_t i = 0; i < entries_.size(); ++i, ++first) {
    if (first == entries_.end()) first = entries_.begin();
    Entry& entry = first->second;
    if (!entry.log_dirty) continue;
    std::string piece = entry.rank->log().next_piece();
    if (piece.empty()) {
      entry.log_dirty = false;
      entry.rank->log().trim();
      continue;
    }
    last_log_ = first->first;
    return link_.push_log(first->first, entry.rank->log().offset(), std::move(piece));
  }
}

void Node::on_log(const std::string& task, const Result<int64_t>& next_offset) {
  auto it = entries_.find(task);
  if (it == entries_.end()) return;
  LogFile& log = it->second.rank->log();
  if (next_offset) log.sent_to(*next_offset);
  if (next_offset && log.offset() == *next_offset) return;
  log_warn("{}: the rest of its log is dropped: {}", task,
           next_offset ? "the controller lost what was handed over" : next_offset.error().message);
  log.give_up();
}

void Node::sync(int64_t now_ns) {
  if (!validation_) {
    if (asking_time_ || link_.next_sync_ns(now_ns)) return;
    asking_time_ = true;
    return link_.ask_time([this](std::optional<int64_t> skew_s) {
      asking_time_ = false;
      if (!skew_s && link_.next_sync_ns(now())) return;  // not reached: again, later
      validation_ = validate(config_, user_, skew_s, host_.isolation.text());
    });
  }
  SyncRequest request{boot_id_, generation_, validation_, config_.address, {}, {}};
  for (const auto& [id, entry] : entries_) {
    request.tasks.push_back(entry.rank->report(now_ns));
    for (const MetricsLine& line : entry.rank->metrics().waiting()) {
      if (request.metrics.size() < kMaxMetricsLines) request.metrics.push_back(line);
    }
  }
  link_.sync(std::move(request), now_ns);
}

void Node::end(std::string_view why, bool say_farewell) {
  if (end_by_ns_ && (say_farewell || *end_by_ns_ == 0)) return;
  log_info("ends: {}", why);
  end_by_ns_ = say_farewell ? INT64_MAX : 0;
  for (auto& [id, entry] : entries_) entry.rank->stop(now());
}

bool Node::finished(int64_t now_ns) const {
  if (!end_by_ns_) return false;
  int64_t last_exit_ns = 0;
  bool said = link_.quiet();
  for (const auto& [id, entry] : entries_) {
    if (!entry.rank->exited()) return false;
    last_exit_ns = std::max(last_exit_ns, entry.rank->exited_at_ns());
    said = said && entry.rank->report(now_ns).state == TaskState::kExited;
  }
  return said || now_ns >= std::min(*end_by_ns_, last_exit_ns + kFarewellNs);
}

int Node::timeout_ms(int64_t now_ns) const {
  int64_t next = now_ns + kMinute;
  auto at = [&](std::optional<int64_t> time) {
    if (time && *time > now_ns) next = std::min(next, *time);
  };
  at(read_at_ns_);
  at(link_.next_sync_ns(now_ns));
  at(link_.log_retry_ns(now_ns));
  for (const auto& [id, entry] : entries_) {
    at(entry.rank->kill_at_ns());
    at(entry.rank->drained_at_ns());
    if (entry.rank->running() && entry.rank->task().ready_url) at(entry.next_probe_ns);
    if (end_by_ns_ && entry.rank->exited()) at(entry.rank->exited_at_ns() + kFarewellNs);
  }
  return static_cast<int>((next - now_ns) / kMillisecond + 1);
}

}  // namespace

Status run_node(const NodeConfig& config) {
  TH_TRY(auto user, user_to_become(config.run_as));
  for (const std::filesystem::path& folder : {config.dir / "logs", config.jobs_dir}) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return fail(errno_error(fmt::format("making {}", folder.string()), error.value()));
  }
  log_info("node {} of VM {} on host {}: controller {}, ranks run as {}", config.name, config.vm, config.host,
           config.controller, user ? user->name : "the node's own user");
  Status ended = Node(config, std::move(user)).run();
  log_info("node {} ended", config.name);
  return ended;
}

}  // namespace th::node
