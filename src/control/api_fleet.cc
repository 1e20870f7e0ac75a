// Routes of the fleet as a page draws it and follows it.

#include <nlohmann/json.hpp>

#include "control/api.h"
#include "control/fleet_view.h"
#include "control/visible.h"

namespace th::control {

void Api::add_fleet_map_routes(http::Router& router) {
  auto json_of = [](std::string text) {
    return http::Response{200, {{"Content-Type", "application/json"}}, std::move(text)};
  };
  auto map = std::make_shared<std::string>();
  auto use = std::make_shared<FleetUse>();
  add(router, "GET", "/api/v1/fleet/map", kViewer,
      [map, json_of](Controller& c, const http::Request&, const http::Responder& responder) {
        if (map->empty()) *map = fleet_map_text(c);
        responder.send(json_of(*map));
      });
  add(router, "GET", "/api/v1/fleet/use", kViewer,
      [use, json_of](Controller& c, const http::Request&, const http::Responder& responder) {
        // It tells of events that are staged: it is told when they are durable.
        c.core.after_commit([responder, json_of, text = use->text(c)] { responder.send(json_of(*text)); });
      });
  read(router, "/api/v1/hosts/{host}", [](Controller& c, const http::Request& request) -> Result<Json> {
    return host_view(c, request.params.at("host"),
                     [&c](const ledger::Owner& owner) { return sees(c.core, owner); });
  });
}

}  // namespace th::control
