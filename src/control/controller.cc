#include "control/controller.h"

namespace th::control {

Controller::Controller(CoreParts parts)
    : core(parts),
      access(core),
      output(parts.state_dir / "logs"),
      checks(core),
      slices(core, checks),
      models(core),
      data_sets(core),
      jobs(core, slices, output, models),
      execs(core),
      nodes(core, slices, checks, execs, output),
      notices(core, slices, jobs),
      deployments(core, jobs) {
  deployments.on_key_used = [this](const std::string& key, int64_t time_ns) { access.used(key, time_ns); };
  jobs.take_check = [this](const launch::Event& event) { return checks.gangs.take(event); };
}

Result<std::unique_ptr<Controller>> Controller::start(CoreParts parts) {
  std::unique_ptr<Controller> out(new Controller(std::move(parts)));
  auto take = [self = out.get()](const ledger::Entry& entry) {
    self->timeline.add(entry, self->core.state());
    self->deployments.committed(entry);
    if (self->on_committed) self->on_committed(entry);
  };
  TH_RETURN_IF_ERROR(out->core.ledger().read(0, [&](const ledger::Entry& entry) -> Status {
    take(entry);
    return {};
  }));
  out->core.ledger().on_committed(take);
  out->jobs.restore();
  return out;
}

Status Controller::step() {
  // Commands are answered before the queues are looked at, which may take long.
  TH_RETURN_IF_ERROR(core.commit());
  core.extend_overdue_claims();  // before anything is placed
  core.refresh_lemons();
  // Jobs first: what they end decides what slices may be released; twice, since slices in turn end jobs.
  jobs.step();
  slices.step();
  checks.gangs.step();
  nodes.step();
  notices.step();
  jobs.step();
  deployments.step();
  access.step();
  TH_RETURN_IF_ERROR(core.commit());
  execs.step();
  nodes.answer_waiting();
  deployments.answer_waiting();
  output.pump(core.state());
  return {};
}

}  // namespace th::control
