#include "sim/trace/openb.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"

namespace th::sim {
namespace {

constexpr int64_t kMaxCpuMilli = 1'000'000'000;
constexpr int64_t kMaxMemoryMib = int64_t{1} << 40;

Result<std::vector<std::string>> models_of(std::string_view spec) {
  if (spec.empty()) return std::vector<std::string>{};
  std::vector<std::string> models = split(spec, '|');
  for (const std::string& model : models) {
    if (model.empty())
      return fail(Code::kInvalidArgument,
                  fmt::format("gpu_spec: want names joined by '|', got '{}'", spec.substr(0, 40)));
  }
  std::sort(models.begin(), models.end());
  models.erase(std::unique(models.begin(), models.end()), models.end());
  return models;
}

Result<OpenbPod> pod_of(const Row& row, int32_t max_gpus, bool has_spec) {
  OpenbPod pod;
  TH_TRY(pod.cpu_milli, row.integer(0, 0, kMaxCpuMilli));
  TH_TRY(pod.memory_mib, row.integer(1, 0, kMaxMemoryMib));
  TH_TRY(int64_t gpus, row.integer(2, 0, max_gpus));
  TH_TRY(int64_t milli, row.integer(3, gpus > 0 ? 1 : 0, gpus > 0 ? kOpenbWholeMilli : 0));
  pod.gpus = static_cast<int32_t>(gpus);
  pod.gpu_milli = static_cast<int32_t>(milli);
  if (has_spec) {
    TH_TRY(pod.models, models_of(row.text(4)));
  }
  return pod;
}

}  // namespace

Result<std::vector<OpenbNode>> read_openb_nodes(std::string_view text, const CsvOptions& options,
                                                Skipped& skipped) {
  constexpr std::array<std::string_view, 5> kColumns = {"sn", "cpu_milli", "memory_mib", "gpu", "model"};
  std::vector<OpenbNode> nodes;
  std::set<std::string, std::less<>> names, models;
  TH_RETURN_IF_ERROR(read_csv(text, options, kColumns, skipped, [&](const Row& row) -> Status {
    OpenbNode node;
    node.name = row.text(0);
    node.model = row.text(4);
    TH_TRY(node.cpu_milli, row.integer(1, 0, kMaxCpuMilli));
    TH_TRY(node.memory_mib, row.integer(2, 0, kMaxMemoryMib));
    TH_TRY(int64_t gpus, row.integer(3, 1, kOpenbMaxGpus));
    node.gpus = static_cast<int32_t>(gpus);
    if (node.name.empty()) return fail(Code::kInvalidArgument, "sn: the node has no name");
    if (node.model.empty()) return fail(Code::kInvalidArgument, "model: the node's GPUs have no model");
    if (!models.contains(node.model) && models.size() == kOpenbMaxModels)
      return fail(Code::kInvalidArgument,
                  fmt::format("model: '{}' would be one more than {}", node.model, kOpenbMaxModels));
    if (!names.insert(node.name).second)
      return fail(Code::kInvalidArgument, fmt::format("sn: '{}' is there twice", node.name));
    models.insert(node.model);
    nodes.push_back(std::move(node));
    return {};
  }));
  if (nodes.empty()) return fail(Code::kInvalidArgument, fmt::format("{}: there is no node", options.file));
  std::sort(nodes.begin(), nodes.end(),
            [](const OpenbNode& a, const OpenbNode& b) { return a.name < b.name; });
  return nodes;
}

Result<std::vector<OpenbPod>> read_openb_pods(std::string_view text, const CsvOptions& options,
                                              int32_t max_gpus, Skipped& skipped) {
  constexpr std::array<std::string_view, 5> kColumns = {"cpu_milli", "memory_mib", "num_gpu", "gpu_milli",
                                                        "gpu_spec"};
  const std::string_view header = text.substr(0, text.find('\n'));
  const bool has_spec = header.find("gpu_spec") != std::string_view::npos;
  std::vector<OpenbPod> pods;
  TH_RETURN_IF_ERROR(read_csv(text, options, std::span(kColumns).first(has_spec ? 5 : 4), skipped,
                              [&](const Row& row) -> Status {
                                TH_TRY(OpenbPod pod, pod_of(row, max_gpus, has_spec));
                                pods.push_back(std::move(pod));
                                return {};
                              }));
  if (std::none_of(pods.begin(), pods.end(), [](const OpenbPod& pod) { return pod.gpus > 0; }))
    return fail(Code::kInvalidArgument, fmt::format("{}: no pod asks for a GPU", options.file));
  return pods;
}

}  // namespace th::sim
