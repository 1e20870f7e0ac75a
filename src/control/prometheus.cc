// GET /metrics: the state at this moment, as gauges and counters.

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <bit>
#include <map>

#include "control/views.h"
#include "reserve/defrag.h"

namespace th::control {
namespace {

using Labels = prometheus::Labels;

class Scrape {
 public:
  void gauge(const char* name, const char* help, double value, const Labels& labels = {}) {
    prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels).Set(value);
  }
  void counter(const char* name, const char* help, double value, const Labels& labels = {}) {
    prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(labels).Increment(value);
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

 private:
  prometheus::Registry registry_{prometheus::Registry::InsertBehavior::Merge};
};

void put_fleet(Scrape& out, const Controller& c) {
  int64_t gpus = 0, used = 0;
  for (size_t i = 0; i < c.core.fleet().hosts().size(); ++i) {
    gpus += c.core.fleet().hosts()[i].gpus;
    used += std::popcount(c.core.snapshot().host_use(static_cast<int32_t>(i), c.core.now_ns()).busy);
  }
  out.gauge("thunderhead_gpus", "GPUs that exist", static_cast<double>(gpus));
  const reserve::Fragmentation scattered = reserve::fragmentation(c.core.snapshot(), c.core.now_ns());
  out.gauge("thunderhead_fragmentation_ratio",
            "Share of the free GPUs that do not lie on leaves that are free as a whole", scattered.share);
  out.gauge("thunderhead_lemon_hosts", "Hosts that lose their nodes too often",
            static_cast<double>(c.core.lemons().size()));
  out.gauge("thunderhead_gpus_used", "GPUs that are held or leased", static_cast<double>(used));
  for (size_t i = 0; i < c.core.fleet().racks().size(); ++i) {
    const fleet::Rack& rack = c.core.fleet().racks()[i];
    const int64_t watts = c.core.snapshot().rack_power_w(static_cast<int32_t>(i), c.core.now_ns());
    out.gauge("thunderhead_rack_power_watts", "Power planned for a rack", static_cast<double>(watts),
              {{"rack", rack.id}});
    out.gauge("thunderhead_rack_power_budget_watts", "Power budget of a rack",
              static_cast<double>(rack.power_budget_w), {{"rack", rack.id}});
  }
}

}  // namespace

std::string prometheus_text(const Controller& c, bool with_names) {
  const ledger::State& state = c.core.state();
  Scrape out;
  put_fleet(out, c);
  std::map<std::string, int64_t> slices, jobs, nodes, deployments;
  ledger::GpuNs gpu_ns = 0;
  int64_t microusd = 0, lost_steps = 0, restarts = 0;
  for (const auto& [id, slice] : state.slices) {
    ++slices[slice_state(c, slice)];
    microusd += slice.cost_microusd_at(c.core.now_ns());
    gpu_ns += slice.gpu_ns_at(c.core.now_ns());
  }
  for (const auto& [id, job] : state.jobs) {
    ++jobs[std::string(ledger::name_of(job.state))];
    lost_steps += job.lost_steps;
    restarts += job.attempt > 1 ? job.attempt - 1 : 0;
  }
  for (const auto& [id, vm] : state.vms) ++nodes[std::string(ledger::name_of(vm.state))];
  for (const auto& [name, deployment] : state.deployments) ++deployments[deployment.state];
  for (const auto& [name, n] : slices)
    out.gauge("thunderhead_slices", "Slices by state", static_cast<double>(n), {{"state", name}});
  for (const auto& [name, n] : jobs)
    out.gauge("thunderhead_jobs", "Jobs by state", static_cast<double>(n), {{"state", name}});
  for (const auto& [name, n] : nodes)
    out.gauge("thunderhead_nodes", "Nodes by state", static_cast<double>(n), {{"state", name}});
  for (const auto& [name, n] : deployments) {
    out.gauge("thunderhead_deployments", "Deployments by state", static_cast<double>(n), {{"state", name}});
  }
  out.counter("thunderhead_gpu_seconds_total", "GPU-seconds metered", static_cast<double>(gpu_ns) / 1e9);
  out.counter("thunderhead_microusd_total", "Money metered, in micro-dollars", static_cast<double>(microusd));
  out.counter("thunderhead_lost_steps_total", "Training steps lost to faults",
              static_cast<double>(lost_steps));
  out.counter("thunderhead_gang_restarts_total", "Gangs started again after a fault",
              static_cast<double>(restarts));
  out.counter("thunderhead_ledger_events_total", "Events in the ledger", static_cast<double>(state.seq));
  std::map<std::string, ledger::TokenUsage> tokens;
  for (const auto& [key, use] : state.tokens) {
    ledger::TokenUsage& sum = tokens[with_names ? key.first : "all"];
    sum.requests += use.requests;
    sum.prompt_tokens += use.prompt_tokens, sum.completion_tokens += use.completion_tokens;
  }
  for (const auto& [name, use] : tokens) {
    const Labels labels = {{"deployment", name}};
    out.counter("thunderhead_requests_total", "Requests that the gateway served",
                static_cast<double>(use.requests), labels);
    out.counter("thunderhead_prompt_tokens_total", "Tokens read", static_cast<double>(use.prompt_tokens),
                labels);
    out.counter("thunderhead_completion_tokens_total", "Tokens written",
                static_cast<double>(use.completion_tokens), labels);
  }
  return out.text();
}

}  // namespace th::control
