#include "sim/world/gateway.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/units.h"
#include "sim/log_hash.h"

namespace th::sim {
namespace {

using gateway::UsageRecord;

constexpr double kMeanPauseNs = 4e9;  // between requests
constexpr int64_t kGatewayGiveUpNs = 12 * kSecond;
constexpr int64_t kGatewayBackOffNs = 2 * kSecond;

bool same(const UsageRecord& a, const ledger::UsageRecord& b) {
  return a.seq == b.seq && a.time_ns == b.time_ns && a.key_id == b.key_id && a.deployment == b.deployment &&
         a.prompt_tokens == b.prompt_tokens && a.completion_tokens == b.completion_tokens &&
         a.latency_ns == b.latency_ns && a.status == b.status;
}

}  // namespace

Gateway::Gateway(Clock& clock, uint64_t seed, ControlPlane& plane, OnViolation on_violation)
    : clock_(clock), prng_(seed), plane_(plane), violation_(std::move(on_violation)) {
  id_ = "journal-" + clock_.token().substr(0, 8);
  bytes_ = gateway::encode_journal_header(id_, 1);
  synced_bytes_ = bytes_.size();
  loses_messages_ = below(2) == 0 ? 0 : 1 + below(150);
  mean_life_ns_ = below(4) == 0 ? 0 : (30 + below(300)) * kSecond;
}

void Gateway::start() {
  restart();
  serve();
}

void Gateway::wind_down() {
  winding_down_ = true;
  loses_messages_ = mean_life_ns_ = 0;
}

/// A long poll, and the next one when it is answered or nobody answers.
void Gateway::poll() {
  const int64_t number = ++poll_;
  http::Request request;
  request.method = "GET", request.path = "/api/v1/gateway/config";
  request.query = {{"have", std::to_string(generation_)}, {"wait_ms", "8000"}};
  auto next = [this, number, life = life_] {
    if (life == life_ && number == poll_) poll();
  };
  clock_.after(kGatewayGiveUpNs, next);
  if (chance(loses_messages_)) return;
  plane_.gateway_request(std::move(request),
                         [this, number, next, life = life_](int status, const std::string& answer) {
                           if (life != life_ || number != poll_ || chance(loses_messages_)) return;
                           if (status == 200) learn(answer);
                           clock_.after(status == 200 ? 200 * kMillisecond : kGatewayBackOffNs, next);
                         });
}

void Gateway::learn(const std::string& text) {
  const Json config = *parse_json(text, "configuration");
  generation_ = config["generation"].get<int64_t>();
  serves_.clear(), keys_.clear();
  for (const Json& of : config["deployments"]) {
    if (!of["replicas"].empty()) serves_.insert(of["name"].get<std::string>());
  }
  for (const Json& key : config["keys"]) keys_.push_back(key["id"].get<std::string>());
}

/// A request ends; its client has the answer once the record is safe.
void Gateway::serve() {
  if (winding_down_) return;
  clock_.after(static_cast<int64_t>(prng_.exponential(kMeanPauseNs)), [this] { serve(); });
  if (!up_ || serves_.empty() || keys_.empty()) return;
  UsageRecord record;
  record.seq = next_seq_++, record.time_ns = clock_.unix_ns();
  record.key_id = keys_[static_cast<size_t>(below(static_cast<int64_t>(keys_.size())))];
  record.deployment = *std::next(serves_.begin(), below(static_cast<int64_t>(serves_.size())));
  record.prompt_tokens = below(4'000), record.completion_tokens = below(1'000);
  record.latency_ns = below(kSecond), record.status = below(20) == 0 ? 499 : 200;
  bytes_ += gateway::encode_record(record);
  unsynced_.push_back(record);
  clock_.after(kMillisecond + below(8 * kMillisecond), [this, life = life_] { sync(life); });
}

void Gateway::sync(int64_t life) {
  if (life != life_) return;
  synced_bytes_ = bytes_.size();
  for (const UsageRecord& record : std::exchange(unsynced_, {})) written_[record.seq] = record;
  if (!std::exchange(handing_over_, true)) hand_over();
}

/// The file is written anew without what was acknowledged.
void Gateway::compact() {
  bytes_ = gateway::encode_journal_header(id_, acked_seq_ + 1);
  for (auto at = written_.upper_bound(acked_seq_); at != written_.end(); ++at)
    bytes_ += gateway::encode_record(at->second);
  synced_bytes_ = bytes_.size();
  for (const UsageRecord& record : unsynced_) bytes_ += gateway::encode_record(record);
}

/// A killed process leaves what it wrote; without power, some of what was not synced is there.
void Gateway::crash() {
  ++life_, ++crashes_;
  up_ = handing_over_ = false;
  if (below(2) == 0)
    bytes_.resize(synced_bytes_ +
                  static_cast<size_t>(below(static_cast<int64_t>(bytes_.size() - synced_bytes_) + 1)));
  unsynced_.clear();
  clock_.after(kSecond + below(20 * kSecond), [this] { restart(); });
}

void Gateway::restart() {
  const gateway::JournalScan scan = gateway::scan_journal(bytes_);
  next_seq_ = scan.next_seq;
  acked_seq_ = scan.records.empty() ? scan.next_seq - 1 : scan.records.front().seq - 1;
  for (const UsageRecord& record : scan.records) written_.emplace(record.seq, record);
  if (scan.id != id_ || next_seq_ != last_written() + 1) {
    violation_(kMoney, fmt::format("journal {} goes on with record {}, and {} was safe", scan.id, next_seq_,
                                   last_written()));
  }
  bytes_.resize(bytes_.rfind('\n') + 1);  // a torn line is dropped
  synced_bytes_ = bytes_.size();
  up_ = true;
  if (mean_life_ns_ > 0) {
    const double left_ns = prng_.exponential(static_cast<double>(mean_life_ns_));
    clock_.after(static_cast<int64_t>(left_ns), [this, life = life_] {
      if (life == life_ && !winding_down_) crash();
    });
  }
  generation_ = 0;
  poll();
  handing_over_ = true;
  hand_over();
}

void Gateway::hand_over() {
  std::vector<UsageRecord> batch;
  const int64_t most = 1 + below(40);
  for (auto at = written_.upper_bound(acked_seq_); at != written_.end(); ++at) {
    batch.push_back(at->second);
    if (static_cast<int64_t>(batch.size()) == most) break;
  }
  handing_over_ = !batch.empty();
  if (batch.empty()) return;
  ++exchange_;
  again(exchange_, kGatewayGiveUpNs);
  if (!chance(loses_messages_)) send(batch, exchange_);
  // A copy that the network kept back.
  if (below(20) == 0) clock_.after(below(60 * kSecond), [this, batch] { send(batch, 0); });
}

void Gateway::again(int64_t exchange, int64_t delay_ns) {
  clock_.after(delay_ns, [this, exchange, life = life_] {
    if (life == life_ && exchange == exchange_) hand_over();
  });
}

void Gateway::send(const std::vector<UsageRecord>& batch, int64_t exchange) {
  Json body = {{"journal", id_}, {"records", Json::array()}};
  for (const UsageRecord& record : batch) body["records"].push_back(gateway::to_json(record));
  http::Request request;
  request.method = "POST", request.path = "/api/v1/gateway/usage", request.body = dump_json(body);
  plane_.gateway_request(std::move(request),
                         [this, batch, exchange, life = life_](int status, const std::string& answer) {
                           if (life == life_ && !chance(loses_messages_))
                             answered(exchange, batch, status, answer);
                         });
}

void Gateway::answered(int64_t exchange, const std::vector<UsageRecord>& batch, int status,
                       const std::string& body) {
  hash_text(hash_, fmt::format("usage {} {}", status, body));
  if (exchange != exchange_ || !handing_over_) return;
  ++exchange_;
  int64_t acked_seq = 0;
  if (status == 200) acked_seq = (*parse_json(body, "answer"))["acked_seq"].get<int64_t>();
  if (acked_seq < batch.front().seq) return again(exchange_, kGatewayBackOffNs);
  acked_seq_ = std::max(acked_seq_, std::min(acked_seq, batch.back().seq));
  told_seq_ = std::max(told_seq_, acked_seq_);
  if (below(8) == 0) compact();
  hand_over();
}

void Gateway::taken(const ledger::UsageRecorded& batch) {
  if (batch.journal != id_)
    return violation_(kMoney, "usage is counted of a journal that nobody has: " + batch.journal);
  for (const ledger::UsageRecord& record : batch.records) {
    const auto written = written_.find(record.seq);
    if (record.seq != last_taken_ + 1 || written == written_.end() || !same(written->second, record)) {
      violation_(kMoney, fmt::format("usage record {} is counted after {}, or is not what the gateway wrote",
                                     record.seq, last_taken_));
    }
    last_taken_ = record.seq;
    ledger::TokenUsage& sum = sums_[{record.deployment, record.key_id}];
    ++sum.requests, sum.prompt_tokens += record.prompt_tokens,
        sum.completion_tokens += record.completion_tokens;
    tokens_ += record.prompt_tokens + record.completion_tokens;
  }
}

void Gateway::check(const ledger::State& state) const {
  const auto journal = state.journals.find(id_);
  const int64_t kept = journal == state.journals.end() ? 0 : journal->second;
  if (kept < told_seq_)
    violation_(kLostAck,
               fmt::format("usage up to record {} was acknowledged, and the ledger has {}", told_seq_, kept));
  const bool equal = std::ranges::equal(state.tokens, sums_, [](const auto& a, const auto& b) {
    return a.first == b.first && a.second.requests == b.second.requests &&
           a.second.prompt_tokens == b.second.prompt_tokens &&
           a.second.completion_tokens == b.second.completion_tokens;
  });
  if (!equal) violation_(kMoney, "the ledger's sums of tokens are not those of the records that it took");
}

}  // namespace th::sim
