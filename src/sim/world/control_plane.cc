#include "sim/world/control_plane.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "base/units.h"
#include "http/exchange.h"

namespace th::sim {
namespace {

constexpr int kWorkers = 4;  // as the daemon
constexpr int64_t kTickNs = kSecond;
constexpr const char *kAdminKey = "admin-key", *kGatewayToken = "gateway-token";
std::string key_of(const std::string& account) { return account.empty() ? kAdminKey : "key-of-" + account; }
/// Only names in events follow from it; nothing is written there.
constexpr const char* kStateDir = "/nonexistent/simulated";

}  // namespace

/// Takes the answer of one request off its exchange.
class ControlPlane::Sink final : public http::ExchangeSink {
 public:
  Sink(ControlPlane& owner, int64_t call, OnAnswer on_answer)
      : owner_(owner), call_(call), on_answer(std::move(on_answer)) {}
  void wake() override { owner_.answered(call_); }
  void abort() override {}
  void resume() override {}

 private:
  ControlPlane& owner_;
  int64_t call_;

 public:
  OnAnswer on_answer;
  std::shared_ptr<http::Exchange> exchange;
};

/// The ledger's store, where the power may fail before and after each transaction.
class ControlPlane::Disk final : public ledger::Store {
 public:
  Disk(ControlPlane& owner, std::unique_ptr<ledger::Store> inner) : owner_(owner), inner_(std::move(inner)) {}
  Status append(const ledger::Batch& batch) override {
    owner_.maybe_die();
    if (owner_.hooks_.disk_is_full()) return fail(Code::kNoSpace, "the simulated disk is full");
    const Status done = inner_->append(batch);
    if (owner_.hooks_.process_is_gone()) throw PowerCut{};
    TH_RETURN_IF_ERROR(done);
    owner_.maybe_die();
    return {};
  }
  Status read(int64_t after_seq, const std::function<Status(const ledger::StoredEvent&)>& row) override {
    return inner_->read(after_seq, row);
  }
  Result<std::optional<ledger::StoredAnswer>> find_answer(const std::string& key) override {
    return inner_->find_answer(key);
  }
  Status forget_answers_before(int64_t time_ns) override { return inner_->forget_answers_before(time_ns); }

 private:
  ControlPlane& owner_;
  std::unique_ptr<ledger::Store> inner_;
};

ControlPlane::ControlPlane(Clock& clock, uint64_t seed, std::shared_ptr<const fleet::Fleet> fleet,
                           SimCloud& cloud, const std::filesystem::path& scratch_dir,
                           const std::string& policy_yaml, ControlPlaneHooks hooks)
    : clock_(clock),
      prng_(seed),
      fleet_(std::move(fleet)),
      cloud_(cloud),
      registry_(*registry::Registry::open(scratch_dir / "models")),
      policy_(*reserve::parse_policy(policy_yaml, "policy.yaml")),
      policy_sha256_(sha256_hex(policy_yaml)),
      hooks_(std::move(hooks)) {}

ControlPlane::~ControlPlane() { calls_.clear(); }

void ControlPlane::maybe_die() const {
  if (hooks_.dies_here()) throw PowerCut{};
}

void ControlPlane::start() {
  TH_CHECK(!up());
  try {
    if (Status opened = open(); !opened) {
      if (hooks_.process_is_gone()) return die();
      controller_.reset();
      hooks_.on_refused_start(opened.error());
      return;
    }
  } catch (const PowerCut&) {
    return die();
  }
  ++starts_;
  hooks_.on_start();
  wake();
  tick();
}

Status ControlPlane::open() {
  TH_TRY(auto store, hooks_.open_store());
  TH_TRY(ledger_, ledger::Ledger::open(std::make_unique<Disk>(*this, std::move(store)), clock_));
  if (ledger_->state().seq < last_seq_) {
    return fail(Code::kDataLoss, fmt::format("the ledger ends with event {}, and event {} was durable",
                                             ledger_->state().seq, last_seq_));
  }
  // What was durable when it died, and was told to nobody.
  TH_RETURN_IF_ERROR(ledger_->read(last_seq_, [&](const ledger::Entry& entry) -> Status {
    last_seq_ = entry.seq;
    hooks_.on_entry(entry);
    return {};
  }));
  loop_ = std::make_unique<control::Loop>();
  launcher_.emplace(clock_.unix_ns());
  api_ = std::make_unique<control::Api>(*loop_, sha256_hex(kGatewayToken));
  control::CoreParts parts{
      clock_,     *ledger_,  fleet_,    cloud_,
      *launcher_, registry_, kStateDir, [this](control::Work w) { offload(std::move(w)); },
      {},         policy_};
  TH_TRY(controller_, control::Controller::start(std::move(parts)));
  api_->attach(*controller_);
  controller_->on_committed = [this, publish = controller_->on_committed](const ledger::Entry& entry) {
    publish(entry);
    last_seq_ = entry.seq;
    hooks_.on_entry(entry);
  };
  router_ = api_->router();
  return state().keys.empty() ? found() : Status();
}

/// A new ledger: the operator's key, one of each account, and a model.
Status ControlPlane::found() {
  control::Core& core = controller_->core;
  core.stage(ledger::PolicyLoaded{policy_sha256_, policy_.half_life_ns});
  core.stage(ledger::KeyAdded{"key-1", "admin", sha256_hex(kAdminKey), "admin"});
  for (const reserve::AccountSpec& account : policy_.accounts) {
    const std::string id = fmt::format("key-{}", state().next_key);
    core.stage(ledger::KeyAdded{id, account.name, sha256_hex(key_of(account.name)), "user"});
    core.stage(ledger::KeyOwned{id, account.name});
  }
  core.stage(ledger::ModelRegistered{kSimulatedModel, "1", std::string(kStateDir) + "/model", "", 0, {}});
  return core.commit();
}

void ControlPlane::die() {
  ++life_, ++deaths_;
  hooks_.on_death();  // nothing of what follows reaches the disk
  calls_.clear();     // before those who would answer them on their way out
  work_.clear();
  busy_workers_ = 0, pump_is_due_ = stuck_ = false;
  router_.reset(), controller_.reset(), api_.reset(), launcher_.reset(), loop_.reset(), ledger_.reset();
  clock_.after(between(100 * kMillisecond, 25 * kSecond), [this] { start(); });
}

void ControlPlane::tick() {
  clock_.after(kTickNs, [this, life = life_] {
    if (life != life_) return;
    tick();
    pump();
  });
}

void ControlPlane::wake() {
  if (std::exchange(pump_is_due_, true)) return;
  clock_.after(between(0, 2 * kMillisecond), [this, life = life_] {
    if (life == life_) pump();
  });
}

/// What the daemon's loop does with a batch.
void ControlPlane::pump() {
  pump_is_due_ = false;
  try {
    loop_->run_posted();
    const Status done = controller_->step();
    if (!done || stuck_) api_->refuse_commands(done ? std::nullopt : std::optional<Error>(done.error()));
    stuck_ = !done;
    maybe_die();
  } catch (const PowerCut&) {
    die();
  }
}

void ControlPlane::offload(control::Work work) {
  maybe_die();
  work_.push_back(std::move(work));
  if (busy_workers_ < kWorkers) run_work();
}

void ControlPlane::run_work() {
  ++busy_workers_;
  control::Work work = std::move(work_.front());
  work_.pop_front();
  clock_.after(between(0, 5 * kMillisecond), [this, life = life_, work = std::move(work)] {
    if (life != life_) return;
    std::function<void()> result = work();
    clock_.after(cloud_.latency_ns(), [this, life, result = std::move(result)] {
      if (life != life_) return;
      loop_->post_result(result);
      wake();
      --busy_workers_;
      if (!work_.empty()) run_work();
    });
  });
}

http::Responder ControlPlane::responder(OnAnswer on_answer) {
  const int64_t call = next_call_++;
  auto sink = std::make_shared<Sink>(*this, call, std::move(on_answer));
  sink->exchange =
      std::make_shared<http::Exchange>(sink, http::Exchange::Options{1 << 20, false, false, true});
  calls_[call] = sink;
  return http::make_responder(sink->exchange);
}

void ControlPlane::answered(int64_t call) {
  const auto found = calls_.find(call);
  if (found == calls_.end()) return;
  const std::shared_ptr<Sink> sink = std::move(found->second);
  calls_.erase(found);
  const std::string bytes = sink->exchange->take().bytes;  // "HTTP/1.1 200 OK\r\n...\r\n\r\nbody"
  const size_t head = bytes.find("\r\n\r\n");
  TH_CHECK(bytes.size() > 12 && head != std::string::npos);
  const int status = std::atoi(bytes.c_str() + 9);
  clock_.after(between(kMillisecond, 20 * kMillisecond),
               [on_answer = std::move(sink->on_answer), status, body = bytes.substr(head + 4)] {
                 on_answer(status, body);
               });
}

void ControlPlane::route(http::Request request, const std::string& token, OnAnswer on_answer) {
  if (!up()) return;  // nobody listens: the caller's time runs out
  request.headers.push_back({"Authorization", "Bearer " + token});
  router_->route(std::move(request), responder(std::move(on_answer)));
  wake();
}

void ControlPlane::request(http::Request request, const std::string& account, OnAnswer on_answer) {
  route(std::move(request), key_of(account), std::move(on_answer));
}

void ControlPlane::gateway_request(http::Request request, OnAnswer on_answer) {
  route(std::move(request), kGatewayToken, std::move(on_answer));
}

void ControlPlane::sync(const std::string& vm, const std::string& token, const node::SyncRequest& request,
                        int64_t wait_ns, OnReply on_reply) {
  if (!up()) return on_reply(fail(Code::kUnavailable, "connection refused"));
  auto answer = responder([on_reply](int status, const std::string& body) {
    if (status != 200) {
      on_reply(fail(http::error_of({status, {}, body})));
      return;
    }
    const auto json = parse_json(body, "sync reply");
    TH_CHECK(json.has_value());
    on_reply(node::sync_reply_from_json(*json));
  });
  loop_->post([this, vm, token, request, wait_ns, answer] {
    if (auto known = controller_->nodes.identify(vm, token); !known) return answer.fail(known.error());
    controller_->nodes.sync(vm, request, wait_ns, answer);
  });
  wake();
}

}  // namespace th::sim
