// The audit log: who asked for which change, from where, and what came of it.

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/units.h"
#include "control/access_fields.h"
#include "control/api.h"
#include "control/timeline.h"
#include "control/views.h"

namespace th::control {
namespace {

constexpr size_t kMaxSummary = 400;
constexpr int64_t kMaxStrangersAMinute = 60;
constexpr int64_t kDefaultRows = 100, kMaxRows = 10'000;

std::string shortened(std::string text) {
  if (text.size() <= kMaxSummary) return text;
  text.resize(kMaxSummary);
  return text + "…";
}

/// What the events that the command staged say.
std::string summary_of(Core& core, int64_t after_seq) {
  std::vector<std::string> parts;
  for (const ledger::Entry& entry : core.ledger().staged_after(after_seq))
    parts.push_back(describe(entry, core.state()).what);
  return parts.empty() ? "accepted" : join(parts, "; ");
}

Json audit_json(const ledger::AuditRecord& row) {
  return {{"seq", row.seq},       {"time_ns", row.time_ns}, {"who", row.who},       {"key", row.key},
          {"tenant", row.tenant}, {"peer", row.peer},       {"method", row.method}, {"path", row.path},
          {"status", row.status}, {"summary", row.summary}};
}

/// RFC 4180; what a spreadsheet would take for a formula is kept from being one.
std::string csv_field(std::string text) {
  if (!text.empty() && std::string_view("=+-@\t\r").find(text[0]) != std::string_view::npos)
    text.insert(0, "'");
  std::string out = "\"";
  for (char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

std::string csv_line(const ledger::AuditRecord& row) {
  return fmt::format("{},{},{},{},{},{},{},{},{},{}\r\n", row.seq, row.time_ns, csv_field(row.who),
                     csv_field(row.key), csv_field(row.tenant), csv_field(row.peer), csv_field(row.method),
                     csv_field(row.path), row.status, csv_field(row.summary));
}

std::string parameter(const http::Request& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? std::string() : found->second;
}

struct AuditPage {
  std::vector<ledger::AuditRecord> rows;
  bool more = false;
};

Result<AuditPage> read_page(Controller& c, const http::Request& request, int64_t limit) {
  ledger::AuditQuery query;
  query.who = parameter(request, "who"), query.what = parameter(request, "what");
  TH_TRY(query.since_ns, query_int(request, "since_ns", 0));
  TH_TRY(query.until_ns, query_int(request, "until_ns", 0));
  TH_TRY(query.before_seq, query_int(request, "after", 0));
  AuditPage page;
  TH_RETURN_IF_ERROR(c.core.ledger().read_audit(query, [&](const ledger::AuditRecord& row) {
    if (!is_within_caller(c, row.tenant)) return true;
    page.more = static_cast<int64_t>(page.rows.size()) == limit;
    if (!page.more) page.rows.push_back(row);
    return !page.more;
  }));
  return page;
}

Result<http::Response> audit_answer(Controller& c, const http::Request& request) {
  const std::string format = parameter(request, "format");
  if (!format.empty() && format != "json" && format != "csv" && format != "jsonl")
    return fail(Code::kInvalidArgument, "query parameter 'format': want json, csv or jsonl");
  const bool whole = format == "csv" || format == "jsonl";  // an export
  TH_TRY(const int64_t limit, query_int(request, "limit", whole ? INT64_MAX : kDefaultRows));
  if (!whole && (limit < 1 || limit > kMaxRows))
    return fail(Code::kInvalidArgument, fmt::format("query parameter 'limit': want 1 to {}", kMaxRows));
  TH_TRY(const AuditPage page, read_page(c, request, limit));
  if (format == "csv") {
    std::string text = "seq,time_ns,who,key,tenant,peer,method,path,status,summary\r\n";
    for (const auto& row : page.rows) text += csv_line(row);
    return http::Response{200, {{"Content-Type", "text/csv; charset=utf-8"}}, std::move(text)};
  }
  if (format == "jsonl") {
    std::string text;
    for (const auto& row : page.rows) text += dump_json(audit_json(row)) + "\n";
    return http::Response{200, {{"Content-Type", "application/jsonl"}}, std::move(text)};
  }
  Json items = Json::array();
  for (const auto& row : page.rows) items.push_back(audit_json(row));
  const Json next = page.more ? Json(std::to_string(page.rows.back().seq)) : Json(nullptr);
  const Json out = {{"items", std::move(items)}, {"next", next}};
  return http::json_response(out);
}

}  // namespace

void Api::audit(const http::Request& request, const Caller& who, const Status& done, int64_t after_seq) {
  Core& core = controller_->core;
  if (request.path.starts_with("/api/v1/gateway/")) return;  // usage: the ledger has it
  if (!done && who.key.empty()) {                            // they cost nothing, and the disk is finite
    const int64_t minute = core.now_ns() / kMinute;
    if (std::exchange(strangers_minute_, minute) != minute) strangers_ = 0;
    if (++strangers_ > kMaxStrangersAMinute) return;
  }
  ledger::AuditRecord row;
  row.status = done ? 200 : http::status_of(done.error().code);
  row.who = who.key.empty() ? "" : who.owner.user, row.key = who.key;
  row.tenant = who.owner.account, row.peer = request.peer;
  row.method = request.method, row.path = shortened(request.path);
  row.summary = shortened(done ? summary_of(core, after_seq) : done.error().message);
  core.ledger().stage_audit(std::move(row));
}

void Api::add_audit_routes(http::Router& router) {
  add(router, "GET", "/api/v1/audit", kOperator,
      [](Controller& c, const http::Request& request, const http::Responder& responder) {
        auto answer = audit_answer(c, request);
        answer ? responder.send(*std::move(answer)) : responder.fail(answer.error());
      });
}

}  // namespace th::control
