// What holds for every route: pages of lists, and the problems that answers name.

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "control/api.h"
#include "control/api_lists.h"
#include "control/openapi.h"

namespace th::control {
namespace {

Json problem_json(Code code) {
  const std::string name(code_name(code));
  return {{"type", "/api/v1/problems/" + name},
          {"title", http::title_of(code)},
          {"status", http::status_of(code)},
          {"code", name}};
}

}  // namespace

Result<Page> page_of(const http::Request& request) {
  Page page;
  TH_TRY(page.limit, query_int(request, "limit", 0));
  if (request.query.count("limit") && (page.limit < 1 || page.limit > kMaxPage))
    return fail(Code::kInvalidArgument, "query parameter 'limit': want 1 to " + std::to_string(kMaxPage));
  if (const auto after = request.query.find("after"); after != request.query.end())
    page.after = after->second;
  if (const auto order = request.query.find("order"); order != request.query.end()) {
    page.descending = order->second == "desc";
    if (!page.descending && order->second != "asc")
      return fail(Code::kInvalidArgument, "query parameter 'order': want asc or desc");
  }
  return page;
}

Result<std::optional<bool>> wants_ended(const http::Request& request) {
  const auto state = request.query.find("state");
  if (state == request.query.end()) return std::nullopt;
  if (state->second == "active") return false;
  if (state->second == "ended") return true;
  return fail(Code::kInvalidArgument, "query parameter 'state': want active or ended");
}

Result<Json> list_page(const http::Request& request,
                       const std::function<void(const Page& page, const TakeItem& take)>& walk) {
  TH_TRY(const Page page, page_of(request));
  Json items = Json::array(), next = nullptr;
  std::string last;
  walk(page, [&](const std::string& key, Json&& item) {
    if (item.is_null()) return true;
    if (page.limit && items.size() == static_cast<size_t>(page.limit)) {
      next = last;
      return false;
    }
    items.push_back(std::move(item));
    last = key;
    return true;
  });
  Json out = {{"items", std::move(items)}};
  if (page.limit) out["next"] = std::move(next);
  return out;
}

Result<std::string> get_name(const Json& body, const char* what) {
  TH_TRY(std::string name, get_string(body, "name"));
  if (Status good = check_name(name, what); !good)
    return fail(good.error().code, "field 'name': " + good.error().message);
  return name;
}

Result<Import> read_import(const Json& body, const char* what) {
  TH_RETURN_IF_ERROR(check_fields(body, {"name", "path"}));
  Import out;
  TH_TRY(out.name, get_name(body, what));
  TH_TRY(out.path, get_string(body, "path"));
  if (!out.path.is_absolute())
    return fail(Code::kInvalidArgument, "field 'path': want an absolute path of the controller's machine");
  return out;
}

void Api::add_contract_routes(http::Router& router) {
  read(
      router, "/api/v1/problems/{code}",
      [](Controller&, const http::Request& request) -> Result<Json> {
        const std::string& name = request.params.at("code");
        const Code code = code_from_name(name);
        if (code_name(code) != name) return fail(Code::kNotFound, "there is no problem '" + name + "'");
        return problem_json(code);
      },
      kAnyone);
  add(router, "GET", "/api/v1/openapi.json", kAnyone,
      [](Controller&, const http::Request&, const http::Responder& responder) {
        responder.send(http::Response{200, {{"Content-Type", "application/json"}}, openapi_json()});
      });
}

}  // namespace th::control
