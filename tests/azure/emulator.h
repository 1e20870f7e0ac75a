#pragma once
// An emulator of what th::cloud's azure provider talks to: Azure Resource Manager (scale sets, capacity
// reservations, sizes, quotas, operations), the OAuth token endpoint, managed identity, scheduled events, and
// retail prices, all at one address. It is not Azure: every answer says so in the header X-Emulator and,
// where it is JSON, in a field "emulator". It runs on a clock of its own, which the caller moves, and
// misbehaves as it is told. Thread: one owner; see Service in serve.h.
//
// What it takes for true of Azure: instances are billed from timeCreated until their deallocation or deletion
// is complete; one that never got a host is not billed; an instance id is never used again in a set.

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/env.h"
#include "base/json.h"
#include "http/client.h"
#include "http/message.h"

namespace th::azure_emulator {

/// Chances in parts of 1,000: of a request, or of what it asks for. All zero: a cloud that works.
struct Faults {
  int64_t throttle = 0;       // 429 with Retry-After
  int64_t server_error = 0;   // 500, 503
  int64_t token_expires = 0;  // 401 in the middle of things
  int64_t no_capacity = 0;    // a scale set gets no host at all
  int64_t half = 0;           // some instances get one, the operation fails
  int64_t half_silent = 0;    // the same, but the operation says that it succeeded
  int64_t slow = 0;           // an operation takes up to an hour
  int64_t lost_request = 0;   // on the way there
  int64_t lost_answer = 0;    // on the way back: done, and nobody knows
  int64_t late_request = 0;   // arrives minutes after the caller gave up
  int64_t repeated = 0;       // arrives once more, up to ten minutes later
};

struct Instance {
  std::string id, name;
  std::string provisioning = "Creating", power, fault_code;
  int64_t created_ns = 0, changed_ns = 0;
  int64_t billed_from_ns = 0, billed_to_ns = 0;  // 0: not billed; not ended
};

struct ScaleSet {
  std::string name;
  Json model;  // as it was put
  std::map<std::string, std::string> tags;
  std::string provisioning = "Creating";
  std::map<int, Instance> instances;
  int next_id = 0;
  int64_t serial = 0;  // a name made again is another set

  bool busy() const { return provisioning == "Creating" || provisioning == "Deleting"; }
};

struct Offer {
  std::string size, family;
  int vcpus = 96;
  double dollars_per_hour = 0, spot_dollars_per_hour = 0;
  bool restricted = false;
};

class Emulator {
 public:
  struct Account {
    std::string subscription = "sub-1", resource_group = "rg-1", tenant = "tenant-1", client_id = "client-1";
    std::string client_secret = "the-secret-of-the-client", region = "eastus";
    std::vector<Offer> offers = {
        {"Standard_ND96isr_H100_v5", "standardNDSv5H100Family", 96, 98.32, 29.5, false},
        {"Standard_NC96ads_A100_v4", "standardNCADSA100v4Family", 96, 14.692, 4.4, false},
        {"Standard_ND96asr_v4", "standardNDASv4_A100Family", 96, 27.197, 8.2, true}};
    int64_t quota_vcpus = 96 * 240;
  };

  explicit Emulator(uint64_t seed);
  Emulator(uint64_t seed, Account account);

  /// Answers one request as the services would, faults of theirs included.
  http::Response answer(const http::Request& request);
  /// The same over a wire that loses, delays and repeats; takes virtual time. Errors: kUnavailable,
  /// kDeadlineExceeded.
  Result<http::Response> carry(const http::Call& call);

  int64_t now_ns() const { return now_ns_; }
  /// Moves the clock and does what falls due.
  void advance(int64_t ns);
  /// Until nothing is due any more.
  void drain();

  /// Announces an event; a Preempt deallocates the instance when it comes. Returns its id.
  std::string announce(const std::string& kind, const std::string& set, int instance, int64_t in_ns);

  const std::map<std::string, ScaleSet>& sets() const { return sets_; }
  const std::map<std::string, Json>& groups() const { return groups_; }
  const std::map<std::string, Json>& reservations() const { return reservations_; }
  /// Every instance that was ever billed and is gone or ended.
  const std::vector<Instance>& ended() const { return ended_; }
  const Account& account() const { return account_; }

  Faults faults;
  std::string base_url = "https://emulator.invalid";  // in links and headers
  std::function<void(const ScaleSet&)> on_allocated = {};
  int64_t requests = 0, misbehaved = 0;
  std::vector<std::string> refused;  // requests that fit no schema

 private:
  struct Operation {
    std::string status = "InProgress", code, message;
    bool by_location = false;
  };
  struct Event {
    std::string kind, set;
    int instance = 0;
    int64_t not_before_ns = 0;
    bool started = false;
  };

  bool chance(int64_t per_mille);
  int64_t between(int64_t low_ns, int64_t high_ns);
  void after(int64_t ns, std::function<void()> what);

  // emulator.cc: who may ask, and the services beside ARM
  http::Response route(const http::Request& request);
  http::Response tokens(const http::Request& request);
  http::Response identity(const http::Request& request);
  http::Response scheduled_events(const http::Request& request);
  http::Response prices(const http::Request& request) const;
  std::string new_token();
  http::Response checked(const std::string& kind, const http::Request& request, const Json& body);
  bool known_token(const http::Request& request);
  void start_event(const std::string& id);

  // arm.cc: resources
  http::Response arm(const http::Request& request, const std::vector<std::string>& way);
  http::Response sizes(const http::Request& request) const;
  http::Response quotas() const;
  http::Response operation(const std::string& id) const;
  http::Response scale_sets(const http::Request& request, const std::vector<std::string>& way);
  http::Response reservation_groups(const http::Request& request, const std::vector<std::string>& way);
  http::Response put_set(const http::Request& request, const std::string& name, const Json& body);
  http::Response refuse_set(const Json& body) const;
  http::Response deallocate(ScaleSet& set, const Json& body);
  http::Response delete_instance(ScaleSet& set, int id);
  http::Response delete_set(ScaleSet& set);
  http::Response begin(int64_t takes_ns, bool may_be_location, std::function<void(Operation&)> finish);
  void make_instances(const std::string& set, int64_t serial, Operation& operation);
  void release(Instance& instance);
  void erase(const std::string& set);
  ScaleSet* same_set(const std::string& name, int64_t serial);
  Json json_of(const ScaleSet& set) const;
  Json json_of(const ScaleSet& set, const Instance& instance) const;
  int64_t vcpus_used(const std::string& family) const;

  Account account_;
  Prng prng_;
  int64_t now_ns_;
  int64_t next_ = 1;
  std::map<std::pair<int64_t, int64_t>, std::function<void()>> due_;  // by time and sequence
  std::map<std::string, int64_t> tokens_;                             // to when they are good
  std::map<std::string, ScaleSet> sets_;
  std::map<std::string, Json> groups_, reservations_;  // by name; by "group/name"
  std::set<std::string> leaving_;                      // of both, being deleted
  std::map<std::string, Operation> operations_;
  std::map<std::string, Event> events_;
  std::vector<Instance> ended_;
};

/// {"error": {"code", "message"}}.
http::Response fault(int status, const std::string& code, const std::string& message);
/// One page of `values`, which the query's $skiptoken begins.
http::Response page_of(const http::Request& request, const std::vector<Json>& values, size_t page,
                       const std::string& base_url);
/// `ns` since 1970 as "2026-11-22T07:00:00.1230000+00:00".
std::string stamp(int64_t ns);

}  // namespace th::azure_emulator
