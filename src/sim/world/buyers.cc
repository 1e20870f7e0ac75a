#include "sim/world/buyers.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/units.h"
#include "sim/log_hash.h"

namespace th::sim {
namespace {

using ledger::SliceState;

constexpr int64_t kGiveUpNs = 10 * kSecond;  // of an answer: then the command is sent again
constexpr int64_t kBackOffNs = 2 * kSecond;
constexpr size_t kMaxSlices = 2, kMaxJobs = 2;  // of one buyer, ended ones that it does not know of included

}  // namespace

Buyers::Buyers(Clock& clock, uint64_t seed, ControlPlane& plane, const fleet::Fleet& fleet,
               BuyerOptions options, OnViolation on_violation)
    : clock_(clock),
      prng_(seed),
      plane_(plane),
      fleet_(fleet),
      options_(std::move(options)),
      violation_(std::move(on_violation)),
      buyers_(options_.buyers.size()) {}

void Buyers::start() {
  for (size_t buyer = 0; buyer < buyers_.size(); ++buyer) next(static_cast<int64_t>(buyer));
}

void Buyers::next(int64_t buyer) {
  const double pause_ms = prng_.exponential(static_cast<double>(options_.think_ms));
  clock_.after(static_cast<int64_t>(pause_ms * 1e6) + kMillisecond, [this, buyer] { choose(buyer); });
}

void Buyers::choose(int64_t index) {
  Buyer& buyer = buyers_[static_cast<size_t>(index)];
  auto some = [&](std::vector<std::string>& of) {
    return of[static_cast<size_t>(below(static_cast<int64_t>(of.size())))];
  };
  auto take = [&](std::vector<std::string>& of) {
    const std::string id = some(of);
    std::erase(of, id);
    return id;
  };
  if (winding_down_) {
    if (!buyer.held.empty()) buyer.slices.push_back(std::exchange(buyer.held, ""));
    if (!buyer.jobs.empty()) {
      const std::string id = take(buyer.jobs);
      return act(index, "cancel", "DELETE", "/api/v1/jobs/" + id, id, "");
    }
    if (!buyer.slices.empty()) {
      const std::string id = take(buyer.slices);
      return act(index, "release", "DELETE", "/api/v1/slices/" + id, id, "");
    }
    if (index == 0) {
      for (const auto& [host, drained] : drained_) {
        if (drained) return act(index, "resume", "POST", "/api/v1/hosts/" + host + "/resume", host);
      }
    }
    return;
  }
  if (!buyer.held.empty()) {
    const std::string id = std::exchange(buyer.held, "");
    const int64_t what = below(100);
    if (what < 80) return act(index, "commit", "POST", "/api/v1/slices/" + id + "/commit", id);
    if (what < 90) return act(index, "release", "DELETE", "/api/v1/slices/" + id, id, "");
    return next(index);  // it expires
  }
  if (index == 0 && below(3) == 0) return change_reservations();
  if (below(8) == 0) return change_deployments(index);
  int64_t what = below(100);
  if (what < 25 && buyer.slices.size() >= kMaxSlices) what = 75;
  if (what < 60 && buyer.jobs.size() >= kMaxJobs) what = 65;
  if (what < 25) return hold(index);
  if (what < 50 && !buyer.slices.empty()) return submit(index, some(buyer.slices));
  if (what < 60) return submit(index, "");
  if (what < 70 && !buyer.jobs.empty()) {
    const std::string id = take(buyer.jobs);
    return act(index, "cancel", "DELETE", "/api/v1/jobs/" + id, id, "");
  }
  if (what < 78 && !buyer.slices.empty()) {
    const std::string id = take(buyer.slices);
    return act(index, "release", "DELETE", "/api/v1/slices/" + id, id, "");
  }
  if (what < 80 && index == 0) {  // the operator
    const std::string host =
        fleet_.host(static_cast<int32_t>(below(static_cast<int64_t>(fleet_.hosts().size())))).id;
    const bool drained = drained_.count(host) && drained_.at(host);
    return act(index, drained ? "resume" : "drain", "POST",
               fmt::format("/api/v1/hosts/{}/{}", host, drained ? "resume" : "drain"), host);
  }
  if (what < 90 && !buyer.slices.empty()) return resize(index, some(buyer.slices));
  if (what < 93 && !buyer.slices.empty()) {
    const std::string id = some(buyer.slices);
    return act(index, "read", "GET", "/api/v1/slices/" + id, id, "");
  }
  next(index);
}

void Buyers::give_back(const ledger::State& state) {
  for (const auto& [id, job] : state.jobs) {
    if (!job.ended() && !job.cancelling() && !job.serves())
      act(0, "cancel", "DELETE", "/api/v1/jobs/" + id, id, "");
  }
  for (const auto& [id, slice] : state.slices) {
    const auto job = slice.terms.implicit ? state.jobs.find(slice.terms.name) : state.jobs.end();
    const bool serves = job != state.jobs.end() && job->second.serves();
    if (slice.state < SliceState::kReleasing && !serves)
      act(0, "release", "DELETE", "/api/v1/slices/" + id, id, "");
  }
  for (const auto& [name, reservation] : state.reservations) unreserve(name);
}

void Buyers::hold(int64_t buyer) {
  Json body = {{"name", fmt::format("s{}", commands_)},
               {"gpus", 1 + below(options_.max_gpus)},
               {"series", options_.series},
               {"duration_ns", (2 + below(40)) * kMinute + below(60) * kSecond}};
  if (below(4) == 0) body["spot"] = true;
  if (below(5) == 0) body["start_ns"] = clock_.unix_ns() + below(20) * kMinute;
  const bool offer = below(4) == 0;
  act(buyer, offer ? "offer" : "hold", "POST", offer ? "/api/v1/offers" : "/api/v1/slices", "",
      dump_json(body));
}

void Buyers::undeploy(const ledger::State& state) {
  for (const auto& [name, of] : state.deployments) {
    if (of.state != "starting" && of.state != "ready") continue;
    deployments_[name].state = "changing";
    act(0, "undeploy", "DELETE", "/api/v1/deployments/" + name, name, "");
  }
}

/// Each buyer has two names. The operator's get slices of their own, others' are served in slices that they
/// have.
void Buyers::change_deployments(int64_t buyer) {
  const auto& slices = buyers_[static_cast<size_t>(buyer)].slices;
  const std::string name = fmt::format("d{}-{}", buyer, below(2));
  DeploymentPromise& promise = deployments_[name];
  if (promise.state == "made" ? below(2) == 0 : below(4) == 0) {
    promise.state = "changing";
    return act(buyer, "undeploy", "DELETE", "/api/v1/deployments/" + name, name, "");
  }
  if (promise.state == "made" || (buyer != 0 && slices.empty())) return next(buyer);
  promise.state = "changing";
  Json body = {{"name", name}, {"model", kSimulatedModel}, {"gpus", 1 + below(2)}};
  if (buyer != 0) body["slice"] = slices[static_cast<size_t>(below(static_cast<int64_t>(slices.size())))];
  act(buyer, "deploy", "POST", "/api/v1/deployments", name, dump_json(body));
}

/// The operator makes one, for accounts or for nobody, or takes one back.
void Buyers::change_reservations() {
  std::vector<std::string> there;
  for (const auto& [name, promise] : reservations_) {
    if (promise.state == "made" && clock_.unix_ns() < promise.end_ns) there.push_back(name);
  }
  if (there.size() > 2 || (!there.empty() && below(3) == 0)) {
    return unreserve(there[static_cast<size_t>(below(static_cast<int64_t>(there.size())))]);
  }
  Json body = {{"name", fmt::format("r{}", commands_)}, {"duration_ns", (5 + below(15)) * kMinute}};
  if (below(2) == 0) body["start_ns"] = clock_.unix_ns() + below(240) * kSecond;
  if (below(3) != 0) {
    body["gpus"] = 1 + below(options_.max_gpus), body["series"] = options_.series;
  } else {
    for (int64_t i = below(4); i >= 0; --i)
      body["hosts"].push_back(
          fleet_.host(static_cast<int32_t>(below(static_cast<int64_t>(fleet_.hosts().size())))).id);
  }
  if (below(4) == 0) {
    body["maintenance"] = true;
  } else {
    for (int64_t i = below(3); i >= 0; --i) body["accounts"].push_back(some_account());
  }
  act(0, "reserve", "POST", "/api/v1/reservations", "", dump_json(body));
}

void Buyers::unreserve(const std::string& name) {
  if (const auto known = reservations_.find(name); known != reservations_.end())
    known->second.state = "being deleted";
  act(0, "unreserve", "DELETE", "/api/v1/reservations/" + name, name, "");
}

/// Of those that are for the account, and now and then another one; "": there is none.
std::string Buyers::some_reservation(const std::string& account) {
  std::vector<std::string> fit;
  for (const auto& [name, promise] : reservations_) {
    if (promise.state != "made" || promise.end_ns <= clock_.unix_ns()) continue;
    if (promise.accounts.count(account) || below(8) == 0) fit.push_back(name);
  }
  return fit.empty() ? "" : fit[static_cast<size_t>(below(static_cast<int64_t>(fit.size())))];
}

std::string Buyers::some_account() {
  return options_.accounts[static_cast<size_t>(below(static_cast<int64_t>(options_.accounts.size())))];
}

void Buyers::resize(int64_t buyer, const std::string& slice) {
  const int64_t gpus = 1 + below(options_.max_gpus), per_host = fleet_.host(0).gpus;
  SlicePromise& promise = slices_.at(slice);
  promise.sizes.insert((gpus + per_host - 1) / per_host * per_host), promise.resized = true;
  act(buyer, "resize", "POST", "/api/v1/slices/" + slice + "/resize", slice, dump_json({{"gpus", gpus}}));
}

void Buyers::submit(int64_t buyer, const std::string& slice) {
  Json body = {{"name", fmt::format("j{}", commands_)},
               {"gpus", 1 + below(options_.max_gpus)},
               {"retries", below(4)},
               {"command", rank_command(1'000 + below(300'000), below(10) != 0)}};
  if (below(5) == 0) body["qos"] = "urgent";
  std::string account = options_.buyers[static_cast<size_t>(buyer)];
  if (account.empty() && !options_.accounts.empty()) body["account"] = account = some_account();
  const std::string reservation = below(3) == 0 ? "" : some_reservation(account);
  if (!reservation.empty()) {
    body["reservation"] = reservation;
  } else if (!slice.empty()) {
    body["slice"] = slice;
  }
  if (!body.contains("slice") || below(3) == 0) body["duration_ns"] = (1 + below(10)) * kMinute;
  act(buyer, "submit", "POST", "/api/v1/jobs", "", dump_json(body));
}

void Buyers::act(int64_t buyer, const std::string& kind, const std::string& method, const std::string& path,
                 const std::string& subject, const std::string& body) {
  auto command = std::make_shared<Command>();
  command->number = commands_++, command->buyer = buyer, command->kind = kind;
  command->account = options_.buyers[static_cast<size_t>(buyer)];
  command->method = method, command->path = path, command->body = body, command->subject = subject;
  command->key = fmt::format("key-{}", command->number);
  if (kind == "drain" || kind == "resume") draining_.insert(subject);
  ++waiting_;
  send(command);
}

void Buyers::deliver(const std::shared_ptr<Command>& command) {
  http::Request request;
  request.method = command->method, request.path = command->path, request.body = command->body;
  request.headers = {{"Idempotency-Key", command->key}};
  plane_.request(std::move(request), command->account,
                 [this, command](int status, const std::string& body) { answered(command, status, body); });
}

void Buyers::send(const std::shared_ptr<Command>& command) {
  const int64_t attempt = ++command->tries;
  deliver(command);
  clock_.after(kGiveUpNs, [this, command, attempt] {
    if (!command->answered && command->tries == attempt) send(command);
  });
}

void Buyers::answered(const std::shared_ptr<Command>& command, int status, const std::string& body) {
  hash_text(hash_, fmt::format("{} {} {}", command->key, status, body));
  if (status >= 500 && !command->answered) {
    const int64_t attempt = command->tries;
    clock_.after(kBackOffNs, [this, command, attempt] {
      if (!command->answered && command->tries == attempt) send(command);
    });
    return;
  }
  const bool changes = command->method != "GET" && command->kind != "offer";
  if (command->answered) {
    if (status == 200 && changes && !command->first_answer.empty() && command->first_answer != body) {
      violation_(kLostAck,
                 fmt::format("{} {} with key {} was answered twice, differently: {} and {}", command->method,
                             command->path, command->key, command->first_answer, body));
    }
    return;
  }
  command->answered = true;
  --waiting_;
  if (command->kind == "drain" || command->kind == "resume") draining_.erase(command->subject);
  if (status == 200) {
    command->first_answer = body;
    ++acknowledged_;
    learn(*command, body);
    if (changes && below(1000) < options_.repeats) repeat(command);
  }
  const bool limited = body.find("quota") != std::string::npos || body.find("budget") != std::string::npos;
  refused_ += status != 200 && limited;
  next(command->buyer);
}

/// A copy of the request that the network kept back, with the same key.
void Buyers::repeat(const std::shared_ptr<Command>& command) {
  clock_.after(below(60'000) * kMillisecond, [this, command] { deliver(command); });
}

void Buyers::learn(const Command& command, const std::string& body) {
  const auto json = parse_json(body, "answer");
  TH_CHECK(json.has_value());
  Buyer& buyer = buyers_[static_cast<size_t>(command.buyer)];
  const std::string id = get_string(*json, "id", std::string()).value_or("");
  const std::string name = get_string(*json, "name", std::string()).value_or("");
  if (command.kind == "hold" || command.kind == "submit") {
    const auto [known, fresh] = names_.emplace(name, id);
    if (!fresh && known->second != id) {
      violation_(kLostAck, fmt::format("one command made both {} and {}", known->second, id));
    }
  }
  if (command.kind == "hold") {
    SlicePromise& promise = slices_[id];
    promise.name = name, promise.state = "held", promise.sizes = {(*json)["gpus"].get<int64_t>()};
    promise.start_ns = (*json)["start_ns"].get<int64_t>(), promise.end_ns = (*json)["end_ns"].get<int64_t>();
    promise.price_microusd = (*json)["offer"]["price_microusd"].get<int64_t>();
    buyer.held = id;
  } else if (command.kind == "resize") {
    std::set<int64_t>& sizes = slices_.at(command.subject).sizes;
    sizes = {(*json)["gpus"].get<int64_t>()};
    if (!(*json)["resizing_to_gpus"].is_null()) sizes.insert((*json)["resizing_to_gpus"].get<int64_t>());
  } else if (command.kind == "commit") {
    slices_[command.subject].state = "committed";
    buyer.slices.push_back(command.subject);
  } else if (command.kind == "release") {
    // Somebody else's, when all is given back at the end.
    if (const auto known = slices_.find(command.subject); known != slices_.end())
      known->second.state = "released";
  } else if (command.kind == "submit") {
    jobs_[id] = {name, (*json)["gpus"].get<int64_t>(), false};
    buyer.jobs.push_back(id);
  } else if (command.kind == "cancel") {
    if (const auto known = jobs_.find(command.subject); known != jobs_.end()) known->second.cancelled = true;
  } else if (command.kind == "reserve") {
    const auto& made = *json;
    reservations_[name] = {"made", made["start_ns"].get<int64_t>(), made["end_ns"].get<int64_t>(),
                           made["hosts"].get<std::vector<std::string>>(),
                           made["accounts"].get<std::set<std::string>>()};
  } else if (command.kind == "unreserve") {
    // Somebody else's may be one whose making nobody was told of.
    if (const auto known = reservations_.find(command.subject); known != reservations_.end())
      known->second.state = "deleted";
  } else if (command.kind == "deploy") {
    deployments_[name] = {"made", get_string(*json, "job", std::string()).value_or("")};
  } else if (command.kind == "undeploy") {
    deployments_[name] = {"deleted", get_string(*json, "job", std::string()).value_or("")};
  } else if (command.kind == "drain" || command.kind == "resume") {
    drained_[command.subject] = command.kind == "drain";
  }
}

}  // namespace th::sim
