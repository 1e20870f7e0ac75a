#pragma once
// The web console: files that are compiled in (tools/embed_console.py), and their routes.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "http/server.h"

namespace th::control {

struct ConsoleAsset {
  std::string_view name;  // "pages/fleet.js"
  std::string_view type;
  std::string_view plain, gzip;
};
/// In the order of their names.
std::span<const ConsoleAsset> console_assets();
/// Comes of all contents; part of the URL of each file.
std::string_view console_version();

/// The page. `gateway_url`: the one other place that it may talk to; empty: none.
http::Response console_page(const http::Request& request, const std::string& gateway_url);
/// The file /console/{path...}: VERSION/NAME, for ever if VERSION is this one's. 404 if there is none.
/// Thread: any.
http::Response console_file(const http::Request& request);

/// Where the gateway of this state folder listens, by its gateway.json; empty: none runs. Cost: reads a small
/// file.
std::string gateway_url_of(const std::filesystem::path& state_dir);

}  // namespace th::control
