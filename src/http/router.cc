#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "http/server.h"

namespace th::http {
namespace {

enum class Kind : char { kLiteral, kParam, kRest };

Kind kind_of(std::string_view segment) {
  if (!segment.starts_with('{') || !segment.ends_with('}')) return Kind::kLiteral;
  return segment.ends_with("...}") ? Kind::kRest : Kind::kParam;
}

std::string name_of(std::string_view segment) {
  size_t tail = kind_of(segment) == Kind::kRest ? 4 : 1;
  return std::string(segment.substr(1, segment.size() - 1 - tail));
}

/// Patterns sort by it so that the first match is the most literal one.
std::string rank_of(const std::vector<std::string>& segments) {
  std::string rank;
  for (const auto& segment : segments)
    rank.push_back(static_cast<char>('0' + static_cast<char>(kind_of(segment))));
  return rank;
}

std::vector<std::string> segments_of(std::string_view path) {
  if (path.starts_with('/')) path.remove_prefix(1);
  return split(path, '/');
}

bool match(const std::vector<std::string>& pattern, const std::vector<std::string>& path,
           std::map<std::string, std::string>& params) {
  for (size_t i = 0; i < pattern.size(); ++i) {
    Kind kind = kind_of(pattern[i]);
    if (kind == Kind::kRest) {
      params[name_of(pattern[i])] = join(std::span(path).subspan(std::min(i, path.size())), "/");
      return true;
    }
    if (i >= path.size()) return false;
    if (kind == Kind::kLiteral && pattern[i] != path[i]) return false;
    if (kind == Kind::kParam) {
      if (path[i].empty()) return false;
      params[name_of(pattern[i])] = path[i];
    }
  }
  return pattern.size() == path.size();
}

}  // namespace

void Router::add(std::string_view method, std::string_view pattern, Handler handler) {
  Route route{std::string(method), segments_of(pattern), std::move(handler)};
  auto later = [](const Route& a, const Route& b) { return rank_of(a.segments) < rank_of(b.segments); };
  routes_.insert(std::upper_bound(routes_.begin(), routes_.end(), route, later), std::move(route));
}

void Router::before(std::function<Status(const Request&)> check) { checks_.push_back(std::move(check)); }

std::vector<std::pair<std::string, std::string>> Router::routes() const {
  std::vector<std::pair<std::string, std::string>> out;
  for (const Route& route : routes_) out.emplace_back(route.method, "/" + join(route.segments, "/"));
  return out;
}

void Router::route(Request request, Responder responder) const {
  const std::vector<std::string> path = segments_of(request.path);
  const std::string& method = request.method;
  std::vector<std::string> allowed;
  for (const Route& route : routes_) {
    std::map<std::string, std::string> params;
    if (!match(route.segments, path, params)) continue;
    if (route.method != method && !(method == "HEAD" && route.method == "GET")) {
      if (std::find(allowed.begin(), allowed.end(), route.method) == allowed.end())
        allowed.push_back(route.method);
      continue;
    }
    request.params = std::move(params);
    for (const auto& check : checks_) {
      if (auto status = check(request); !status) return responder.fail(status.error());
    }
    return route.handler(std::move(request), std::move(responder));
  }
  if (allowed.empty()) {
    return responder.fail({Code::kNotFound, "no such route: " + request.method + " " + request.path});
  }
  const std::string takes = join(allowed, ", ");
  responder.fail({Code::kInvalidArgument, request.path + " does not take " + method + "; it takes " + takes},
                 405, {{"Allow", takes}});
}

}  // namespace th::http
