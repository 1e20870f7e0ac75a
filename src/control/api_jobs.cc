// Routes of jobs, models and deployments.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/views.h"
#include "control/visible.h"

namespace th::control {
namespace {

constexpr size_t kLogReadBytes = 1 << 20;

Result<const ledger::Job*> find_job(Controller& c, const http::Request& request) {
  const std::string& id = request.params.at("id");
  if (const ledger::Job* job = find_job(c.core, id)) return job;
  return fail(Code::kNotFound, "job '" + id + "' does not exist; th jobs lists those that do");
}

Result<const ledger::Deployment*> find_deployment(Controller& c, const http::Request& request) {
  const std::string& name = request.params.at("name");
  if (const ledger::Deployment* deployment = find_deployment(c.core, name)) return deployment;
  return fail(Code::kNotFound,
              "deployment '" + name + "' does not exist; th deployments lists those that do");
}

/// That the caller may change.
Result<const ledger::Job*> own_job(Controller& c, const http::Request& request) {
  TH_TRY(const ledger::Job* job, find_job(c, request));
  TH_RETURN_IF_ERROR(check_may_change(c.core, job->owner, "job '" + job->submitted.job + "'"));
  return job;
}

using Opened = std::function<void(const http::Stream&)>;

Status send_logs(Controller& c, const http::Request& request, const http::Responder& responder,
                 const Opened& opened) {
  TH_TRY(const ledger::Job* job, find_job(c, request));
  TH_TRY(const int64_t rank, query_int(request, "rank", 0));
  TH_TRY(const int64_t attempt, query_int(request, "attempt", 0));
  TH_TRY(const int64_t offset, query_int(request, "offset", 0));
  TH_TRY(const int64_t follow, query_int(request, "follow", 0));
  if (rank > 1'000'000 || attempt > job->attempt) {
    return fail(Code::kNotFound, "job '" + job->submitted.job + "' has no such rank or attempt");
  }
  const std::string& id = job->submitted.job;
  if (follow) {
    http::Stream stream = responder.event_stream();
    opened(stream);
    c.output.follow(std::move(stream), id, static_cast<int>(attempt), static_cast<int>(rank), offset);
    return {};
  }
  const int64_t of = attempt ? attempt : job->attempt;
  TH_TRY(std::string text,
         c.output.read_log({id, static_cast<int>(of), static_cast<int>(rank)}, offset, kLogReadBytes));
  const std::string next = std::to_string(offset + static_cast<int64_t>(text.size()));
  responder.send(http::Response{
      200, {{"Content-Type", "text/plain; charset=utf-8"}, {"X-Next-Offset", next}}, std::move(text)});
  return {};
}

/// Done once the model is in the registry and the ledger knows it.
Status import_model(Controller& c, const Json& body, const std::function<void(Result<Answer>)>& done) {
  TH_TRY(const Import asked, read_import(body, "model"));
  const std::string& name = asked.name;
  if (c.models.is_importing(name))
    return fail(Code::kFailedPrecondition, "a model '" + name + "' is being registered; try again");
  c.models.import(name, asked.path, [&c, done](const Result<registry::Model>& model) {
    if (!model) return done(fail(model.error()));
    c.models.stage(*model, "");
    done(Answer(model_json(c.core.state().models.at(model->name).back())));
  });
  return {};
}

Result<DeploySpec> deploy_spec(const Json& body) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "model", "slice", "gpus", "tokens_per_minute"}));
  DeploySpec spec;
  TH_TRY(spec.name, get_string(body, "name"));
  TH_TRY(spec.model, get_string(body, "model"));
  if (body.contains("slice") && !body["slice"].is_null()) {
    TH_TRY(spec.slice, get_string(body, "slice"));
  }
  TH_TRY(spec.gpus, get_int(body, "gpus", 1));
  TH_TRY(spec.tokens_per_minute, get_int(body, "tokens_per_minute", 0));
  if (spec.gpus < 1 || spec.gpus > 32)
    return fail(Code::kInvalidArgument, "field 'gpus': want 1 to 32 (one node)");
  if (spec.tokens_per_minute < 0)
    return fail(Code::kInvalidArgument, "field 'tokens_per_minute': want an integer >= 0");
  return spec;
}

}  // namespace

void Api::add_job_routes(http::Router& router) {
  write(router, "POST", "/api/v1/jobs", kMember,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_TRY(const request::JobSpec spec, request::job_spec_from_json(body));
          TH_TRY(const std::string id, c.jobs.submit(spec, "batch"));
          return Answer(job_json(c, c.core.state().jobs.at(id)));
        });
  // Asking changes nothing, so it is no command and leaves no answer behind.
  add(router, "POST", "/api/v1/jobs/estimate", kViewer,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto estimate = [&]() -> Result<Json> {
          if (request.body.size() > kMaxBodyBytes)
            return fail(Code::kInvalidArgument, "body: at most 1 MiB is taken");
          TH_TRY(const Json body, parse_json(request.body, "body"));
          TH_TRY(const request::JobSpec spec, request::job_spec_from_json(body));
          TH_TRY(const Estimate estimate, c.jobs.estimate(spec));
          return estimate_json(c, estimate);
        }();
        send(c, responder, estimate);
      });
  write(router, "POST", "/api/v1/jobs/{id}/steps", kMember,
        [](Controller& c, const http::Request& request, const Json& body) -> Result<Answer> {
          TH_TRY(const ledger::Job* job, own_job(c, request));
          TH_TRY(request::JobSpec spec, request::job_spec_from_json(body));
          TH_TRY(const std::string id, c.jobs.submit_step(job->submitted.job, std::move(spec)));
          return Answer(job_json(c, c.core.state().jobs.at(id)));
        });
  write(router, "DELETE", "/api/v1/jobs/{id}", kMember,
        [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
          TH_TRY(const ledger::Job* job, own_job(c, request));
          c.jobs.cancel(job->submitted.job, "cancelled", "cancelled by hand");
          return Answer(job_json(c, *job));
        });
  read(router, "/api/v1/jobs", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const std::optional<bool> ended, wants_ended(request));
    const ledger::Slice* on = nullptr;
    if (const auto name = request.query.find("slice"); name != request.query.end()) {
      on = find_slice(c.core, name->second);
      if (!on) return fail(Code::kNotFound, fmt::format("slice '{}' does not exist", name->second));
    }
    return list_json(request, c.core.state().jobs, [&](const std::string&, const ledger::Job& job) {
      const bool asked = (!ended || *ended == job.ended()) && (!on || on->terms.slice == job.slice);
      return asked && sees(c.core, job.owner) ? job_json(c, job) : Json();
    });
  });
  read(router, "/api/v1/jobs/{id}", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::Job* job, find_job(c, request));
    return job_json(c, *job);
  });
  read(router, "/api/v1/jobs/{id}/metrics", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::Job* job, find_job(c, request));
    ByName<const StoredLine*> lines;  // they are only appended to
    for (const StoredLine& line : c.output.metrics(job->submitted.job))
      lines.emplace(std::to_string(lines.size() + 1), &line);
    return list_json(request, lines, [](const std::string&, const StoredLine* line) {
      auto json = parse_json(line->line, "metrics line");
      return json ? *std::move(json) : Json();
    });
  });
  add(router, "GET", "/api/v1/jobs/{id}/logs", kViewer,
      [this](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto opened = [&](const http::Stream& stream) { followers_.push_back({stream, c.core.who()}); };
        if (Status sent = send_logs(c, request, responder, opened); !sent) responder.fail(sent.error());
      });
}

void Api::add_serving_routes(http::Router& router) {
  read(router, "/api/v1/models", [](Controller& c, const http::Request& request) {
    ByName<const ledger::ModelRegistered*> models;
    for (const auto& [name, versions] : c.core.state().models) {
      for (const auto& model : versions) {
        if (sees(c.core, model)) models.emplace(name + "@" + model.version, &model);
      }
    }
    return list_json(request, models, [](const std::string&, const ledger::ModelRegistered* model) {
      return model_json(*model);
    });
  });
  read(router, "/api/v1/models/{name}", [](Controller& c, const http::Request& request) -> Result<Json> {
    const std::string& name = request.params.at("name");
    if (const ledger::ModelRegistered* model = find_model(c.core, name)) return model_json(*model);
    return fail(Code::kNotFound,
                "model '" + name + "' is not in the registry; th models lists those that are");
  });
  write_late(router, "POST", "/api/v1/models", kPlatformAdmin,
             [](Controller& c, const http::Request&, const Json& body, const Done& done) {
               if (Status begun = import_model(c, body, done); !begun) done(fail(begun.error()));
             });
  write(router, "POST", "/api/v1/deployments", kMember,
        [](Controller& c, const http::Request&, const Json& body) -> Result<Answer> {
          TH_TRY(const DeploySpec spec, deploy_spec(body));
          TH_RETURN_IF_ERROR(c.deployments.create(spec));
          return Answer(deployment_json(c, c.core.state().deployments.at(spec.name)));
        });
  write(
      router, "DELETE", "/api/v1/deployments/{name}", kMember,
      [](Controller& c, const http::Request& request, const Json&) -> Result<Answer> {
        TH_TRY(const ledger::Deployment* deployment, find_deployment(c, request));
        const ledger::Owner& owner = c.core.state().jobs.at(deployment->created.job).owner;
        TH_RETURN_IF_ERROR(check_may_change(c.core, owner, "deployment '" + deployment->created.name + "'"));
        TH_RETURN_IF_ERROR(c.deployments.stop(deployment->created.name, "undeployed by hand"));
        return Answer(deployment_json(c, *deployment));
      });
  read(router, "/api/v1/deployments", [](Controller& c, const http::Request& request) {
    return list_json(request, c.core.state().deployments,
                     [&c](const std::string&, const ledger::Deployment& deployment) {
                       return sees(c.core, deployment) ? deployment_json(c, deployment) : Json();
                     });
  });
  read(router, "/api/v1/deployments/{name}", [](Controller& c, const http::Request& request) -> Result<Json> {
    TH_TRY(const ledger::Deployment* deployment, find_deployment(c, request));
    return deployment_json(c, *deployment);
  });
}

}  // namespace th::control
