#include "node/config.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/text.h"

namespace th::node {
namespace {

Result<std::filesystem::path> get_folder(const Json& json, const char* field) {
  TH_TRY(std::filesystem::path path, get_string(json, field));
  if (path.is_absolute()) return path;
  return fail(Code::kInvalidArgument,
              fmt::format("field '{}': want an absolute path, got '{}'", field, path.string()));
}

Result<std::vector<std::filesystem::path>> get_folders(const Json& json, const char* field) {
  std::vector<std::filesystem::path> folders;
  if (!json.contains(field)) return folders;
  for (const Json& folder : json.at(field)) {
    const auto* text = folder.get_ptr<const std::string*>();
    if (text == nullptr || !text->starts_with('/'))
      return fail(Code::kInvalidArgument, fmt::format("field '{}': want absolute paths", field));
    folders.emplace_back(*text);
  }
  return folders;
}

Result<int64_t> get_amount(const Json& json, const char* field) {
  TH_TRY(int64_t value, get_int(json, field, 0));
  if (value < 0) return fail(Code::kInvalidArgument, fmt::format("field '{}': want 0 or more", field));
  return value;
}

Result<int> get_count(const Json& json, const char* field) {
  TH_TRY(int64_t value, get_amount(json, field));
  if (value > 1'000'000)
    return fail(Code::kInvalidArgument, fmt::format("field '{}': {} is too many", field, value));
  return static_cast<int>(value);
}

Result<Expectation> read_expectation(const Json& json) {
  Expectation expect;
  TH_TRY(expect.gpus, get_count(json, "gpus"));
  TH_TRY(expect.cpus, get_count(json, "cpus"));
  TH_TRY(expect.memory_bytes, get_amount(json, "memory_bytes"));
  TH_TRY(expect.disk_free_bytes, get_amount(json, "disk_free_bytes"));
  TH_TRY(expect.memory_bytes_per_s, get_amount(json, "memory_bytes_per_s"));
  if (!json.contains("programs")) return expect;
  for (const Json& program : json.at("programs")) {
    if (!program.is_string()) return fail(Code::kInvalidArgument, "field 'programs': want strings");
    expect.programs.push_back(program.get<std::string>());
  }
  return expect;
}

Result<NodeConfig> read_config(const Json& json) {
  NodeConfig config;
  TH_TRY(config.name, get_string(json, "name"));
  TH_TRY(config.host, get_string(json, "host"));
  TH_TRY(config.vm, get_string(json, "vm"));
  TH_RETURN_IF_ERROR(check_name(config.vm, "field 'vm'"));
  TH_TRY(config.controller, get_string(json, "controller"));
  while (config.controller.ends_with('/')) config.controller.pop_back();
  TH_TRY(config.authority, get_string(json, "authority", ""));
  TH_TRY(config.token, get_string(json, "token"));
  TH_TRY(config.dir, get_folder(json, "dir"));
  TH_TRY(config.jobs_dir, get_folder(json, "jobs_dir"));
  TH_TRY(config.address, get_string(json, "address", "127.0.0.1"));
  TH_TRY(config.gpus, get_count(json, "gpus"));
  TH_TRY(std::string run_as, get_string(json, "run_as", ""));
  if (!run_as.empty()) config.run_as = run_as;
  TH_TRY(config.private_networks, get_bool(json, "private_networks", true));
  TH_TRY(config.registry, get_folders(json, "registry"));
  if (json.contains("expect")) {
    TH_TRY(config.expect, read_expectation(json.at("expect")));
  }
  return config;
}

}  // namespace

Result<NodeConfig> load_node_config(const std::filesystem::path& path) {
  TH_TRY(std::string text, read_file(path, 1 << 20));
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && (info.st_mode & 077) != 0) {
    return fail(Code::kPermissionDenied,
                fmt::format("{}: others may read it, and it holds a token; chmod 600 it", path.string()));
  }
  TH_TRY(Json json, parse_json(text, path.string()));
  auto config = read_config(json);
  if (!config) return fail(config.error().code, fmt::format("{}: {}", path.string(), config.error().message));
  return config;
}

}  // namespace th::node
