#pragma once
// Checkpoints that are whole or not there: checkpoints/step-000050/{shard-00000.bin …, manifest.json}. See
// docs/formats.md.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "collective/collective.h"

namespace th::train {

/// What is kept beside the numbers.
struct CheckpointMeta {
  int64_t step = 0;
  int64_t sequences = 0;  // that were learned from; where the next step goes on in the data
  float first_loss = 0;
  float last_loss = 0;
  std::string fingerprint;  // of model and tokenizer: another model's checkpoint is not used

  bool operator==(const CheckpointMeta&) const = default;
};

/// What one rank holds: all parameters, and the optimizer's moments of its shard of them.
struct TrainState {
  std::span<float> params;
  std::span<float> m, v;
};

/// Writes and reads the checkpoints of one folder, all ranks together. Thread: one owner.
class Checkpoints {
 public:
  /// `folder` is seen by all ranks. `group` must outlive it.
  Checkpoints(std::filesystem::path folder, int64_t keep, collective::Group& group)
      : folder_(std::move(folder)), keep_(keep), group_(group) {}

  /// Written under a temporary name, each rank its shard, each file synced, the manifest last, then renamed;
  /// then all but the newest `keep` are removed. Fails on all ranks or on none. Errors: kNoSpace,
  /// kPermissionDenied, …, as the failing rank saw it, or kUnavailable elsewhere: older checkpoints are
  /// intact and training may go on; an error of the group breaks it (see `is_group_error`).
  Status save(const CheckpointMeta& meta, const TrainState& state);

  /// Loads the newest intact checkpoint of this model, whatever the world size that wrote it; nothing when
  /// there is none. Others are passed over with a warning that says why. Errors: those of the group;
  /// kDataLoss.
  Result<std::optional<CheckpointMeta>> load_newest(const std::string& fingerprint, const TrainState& state);

  /// Whether the last error of `save` came from the group, so that this rank cannot go on.
  bool is_group_error() const { return is_group_error_; }

 private:
  std::filesystem::path path_of(int64_t step) const;
  Status prepare(const std::filesystem::path& temporary);
  Status publish(const CheckpointMeta& meta, const std::filesystem::path& temporary,
                 std::span<const float> digests, size_t size);
  void remove_old();
  Status agree(const Status& mine);
  Result<CheckpointMeta> load(int64_t step, const std::string& fingerprint, const TrainState& state);

  std::filesystem::path folder_;
  int64_t keep_;
  collective::Group& group_;
  bool is_group_error_ = false;
};

/// "step-000050" → 50; none: it is no checkpoint's name.
std::optional<int64_t> step_of_name(std::string_view name);

/// Steps of the finished checkpoints in `folder`, newest first; intact or not.
std::vector<int64_t> list_checkpoints(const std::filesystem::path& folder);

}  // namespace th::train
