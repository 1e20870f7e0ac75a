#include "control/console.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"

namespace th::control {
namespace {

const ConsoleAsset* find_asset(std::string_view name) {
  const auto assets = console_assets();
  const auto found = std::ranges::lower_bound(assets, name, {}, &ConsoleAsset::name);
  return found != assets.end() && found->name == name ? &*found : nullptr;
}

http::Response answer(const http::Request& request, const ConsoleAsset& asset, std::string_view cache) {
  const bool gzip = request.header("Accept-Encoding").value_or("").find("gzip") != std::string::npos;
  http::Response out;
  out.headers = {{"Content-Type", std::string(asset.type)},
                 {"Cache-Control", std::string(cache)},
                 {"Vary", "Accept-Encoding"},
                 {"X-Content-Type-Options", "nosniff"}};
  if (gzip) out.headers.emplace_back("Content-Encoding", "gzip");
  out.body = gzip ? asset.gzip : asset.plain;
  return out;
}

/// A URL as a source of a Content-Security-Policy: nothing that could end the directive.
bool is_plain_url(std::string_view url) {
  return (url.starts_with("http://") || url.starts_with("https://")) && std::ranges::all_of(url, [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) ||
                  std::string_view(":/.-[]").find(c) != std::string_view::npos;
         });
}

}  // namespace

http::Response console_page(const http::Request& request, const std::string& gateway_url) {
  const std::string gateway = is_plain_url(gateway_url) ? " " + gateway_url : "";
  http::Response out = answer(request, *find_asset("index.html"), "no-cache");
  // Pico's icons are data: images.
  out.headers.emplace_back(
      "Content-Security-Policy",
      // The terminal colours its cells by styles of its own making.
      "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'" +
          gateway + "; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'");
  out.headers.emplace_back("ETag", '"' + std::string(console_version()) + '"');
  out.headers.emplace_back("Referrer-Policy", "no-referrer");
  return out;
}

http::Response console_file(const http::Request& request) {
  const std::string& path = request.params.at("path");
  const size_t slash = path.find('/');
  const ConsoleAsset* asset =
      slash == std::string::npos ? nullptr : find_asset(std::string_view(path).substr(slash + 1));
  if (!asset)
    return http::error_response({Code::kNotFound, "the console has no file '" + path + "'; open / again"});
  const bool current = std::string_view(path).substr(0, slash) == console_version();
  return answer(request, *asset, current ? "public, max-age=31536000, immutable" : "no-cache");
}

std::string gateway_url_of(const std::filesystem::path& state_dir) {
  const auto text = read_file(state_dir / "gateway.json", 4096);
  if (!text) return "";
  const auto json = parse_json(*text, "gateway.json");
  return json ? get_string(*json, "url", std::string()).value_or("") : "";
}

}  // namespace th::control
